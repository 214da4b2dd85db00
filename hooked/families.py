"""Where each family of Hugging Face models keeps what a dictionary was trained on, and how to add one.

One `Family` says, for a model's `config.model_type`, which module's input or output each SAELens hook is, and which
weights map a head-space row into the residual stream. Decide by family, never by a module's name: in Gemma 2 and 3
`post_attention_layernorm` is the attention's *output* norm, in Llama the norm *before* the MLP.

To add a family: add one entry to FAMILIES; `tests/test_hooked_hookpoints.py` then runs a tiny random model of it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from atlas.errors import ModelError

# TransformerLens and Neuronpedia short names -> hub names, for the models whose dictionaries SAELens lists.
HUB_NAMES = {
    "gpt2-small": "openai-community/gpt2",
    "gpt2": "openai-community/gpt2",
    "gpt2-medium": "openai-community/gpt2-medium",
    "gpt2-large": "openai-community/gpt2-large",
    "gpt2-xl": "openai-community/gpt2-xl",
    "pythia-70m": "EleutherAI/pythia-70m",
    "pythia-70m-deduped": "EleutherAI/pythia-70m-deduped",
    "pythia-160m": "EleutherAI/pythia-160m",
    "pythia-160m-deduped": "EleutherAI/pythia-160m-deduped",
    "pythia-410m-deduped": "EleutherAI/pythia-410m-deduped",
    "gemma-2b": "google/gemma-2b",
    "gemma-2b-it": "google/gemma-2b-it",
    "gemma-2-2b": "google/gemma-2-2b",
    "gemma-2-2b-it": "google/gemma-2-2b-it",
    "gemma-2-9b": "google/gemma-2-9b",
    "gemma-2-9b-it": "google/gemma-2-9b-it",
    "gemma-2-27b": "google/gemma-2-27b",
    "gemma-3-270m": "google/gemma-3-270m",
    "gemma-3-270m-it": "google/gemma-3-270m-it",
    "gemma-3-1b-pt": "google/gemma-3-1b-pt",
    "gemma-3-1b-it": "google/gemma-3-1b-it",
    "gemma-3-4b-pt": "google/gemma-3-4b-pt",
    "gemma-3-4b-it": "google/gemma-3-4b-it",
    "gemma-3-12b-pt": "google/gemma-3-12b-pt",
    "gemma-3-12b-it": "google/gemma-3-12b-it",
    "gemma-3-27b-it": "google/gemma-3-27b-it",
    "llama3.1-8b": "meta-llama/Llama-3.1-8B",
    "llama-3.1-8b": "meta-llama/Llama-3.1-8B",
    "llama-3.1-8b-instruct": "meta-llama/Llama-3.1-8B-Instruct",
    "llama3.1-8b-it": "meta-llama/Llama-3.1-8B-Instruct",
    "mistral-7b": "mistralai/Mistral-7B-v0.1",
    "smollm2-135m-instruct": "HuggingFaceTB/SmolLM2-135M-Instruct",
}


@dataclass(frozen=True)
class Family:
    """Module and weight names of one family, relative to a block unless said otherwise."""

    name: str
    model_types: tuple[str, ...]  # values of config.model_type
    layers: str  # path of the list of blocks
    attention: str  # its output is what attention adds to the stream (hook_attn_out)
    mlp: str  # its output is what the MLP adds to the stream (hook_mlp_out)
    mlp_input: str  # its input is what the MLP reads (transcoders' encoders read it)
    o_proj: str  # its input is hook_z, all heads side by side
    mid: str | None  # its input is the stream between attention and MLP (hook_resid_mid); None: they run in parallel
    o_proj_transposed: bool = False  # Conv1D keeps [in, out]
    output_norm: str | None = None  # RMS norm between o_proj and the stream, weight applied as 1 + w
    positions: str | None = None  # learned embeddings of positions, from the model's root, where it has such
    final_norm: str = "model.norm"  # from the model's root
    norm_offset: float = 0.0  # what is added to the final norm's weight


FAMILIES = (
    Family(
        "gpt2",
        ("gpt2",),
        layers="transformer.h",
        attention="attn",
        mlp="mlp",
        mlp_input="mlp",
        o_proj="attn.c_proj",
        mid="ln_2",
        o_proj_transposed=True,
        positions="transformer.wpe",
        final_norm="transformer.ln_f",
    ),
    Family(
        "llama",
        ("llama", "mistral", "qwen2", "qwen3", "smollm3", "phi3"),
        layers="model.layers",
        attention="self_attn",
        mlp="mlp",
        mlp_input="mlp",
        o_proj="self_attn.o_proj",
        mid="post_attention_layernorm",
    ),
    Family(
        "gemma",
        ("gemma",),
        layers="model.layers",
        attention="self_attn",
        mlp="mlp",
        mlp_input="mlp",
        o_proj="self_attn.o_proj",
        mid="post_attention_layernorm",
        norm_offset=1.0,
    ),
    Family(
        "gemma2",
        ("gemma2", "gemma3", "gemma3_text"),
        layers="model.layers",
        # The output norms and not self_attn and mlp: what reaches the stream has passed through them.
        attention="post_attention_layernorm",
        mlp="post_feedforward_layernorm",
        mlp_input="mlp",
        o_proj="self_attn.o_proj",
        mid="pre_feedforward_layernorm",
        output_norm="post_attention_layernorm",
        norm_offset=1.0,
    ),
    Family(
        "gpt_neox",
        ("gpt_neox",),
        layers="gpt_neox.layers",
        attention="attention",
        mlp="mlp",
        mlp_input="mlp",
        o_proj="attention.dense",
        mid=None,
        final_norm="gpt_neox.final_layer_norm",
    ),
)


def family_of(model_type: str) -> Family:
    """The family of a `config.model_type`; raises ModelError with the known ones."""
    for family in FAMILIES:
        if model_type in family.model_types:
            return family
    known = ", ".join(sorted(name for family in FAMILIES for name in family.model_types))
    raise ModelError(f"models of type {model_type!r} are not known; known: {known} (CONTRIBUTING says how to add one)")


# Words in the names of models whose configuration is not at hand, and their family; the first that is found counts.
_WORDS = {
    # `\b` keeps gemma-2b out: a first Gemma of two billion parameters, not a second one.
    r"gemma-?[23]\b": "gemma2",
    r"gemma-[27]b": "gemma",
    "gpt-?2": "gpt2",
    "pythia|gpt-?neox": "gpt_neox",
    r"llama|mistral|qwen-?[23]|smollm|phi-?3": "llama",
}


def family_of_name(name: str) -> Family | None:
    """The family that a model's name tells; None where it tells none."""
    found = (family for words, family in _WORDS.items() if re.search(words, short_name(name)))
    wanted = next(found, None)
    return next((family for family in FAMILIES if family.name == wanted), None)


def hub_name(name: str) -> str:
    """The hub name of a TransformerLens or Neuronpedia short name, any other as it is; each may end in @REVISION."""
    plain, revision = split_revision(name)
    known = HUB_NAMES.get(plain.lower(), plain)
    return f"{known}@{revision}" if revision else known


def split_revision(name: str) -> tuple[str, str | None]:
    """A model's name and its revision on the hub, of `NAME@REVISION`; a folder has none, whatever it is called."""
    plain, sign, revision = name.rpartition("@")
    return (plain, revision) if sign and plain and revision and not Path(name).expanduser().exists() else (name, None)


def short_name(name: str) -> str:
    """The model part of an id: the last part of the model's name, lower case."""
    return re.split(r"[/\\]", name.rstrip("/\\"))[-1].lower()
