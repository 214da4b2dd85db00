"""What the configuration of one SAELens dictionary says, whatever version of SAELens wrote it.

SAELens 6 nests what it knows of the model under `metadata`; older files are flat and use older names. Both are read
here, strictly: a field that decides what rows or activations mean is checked, never guessed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from atlas.errors import IngestError

# SAELens architecture -> the encoder it has when it is used. BatchTopK, Matryoshka too, is used with one threshold.
ENCODERS = {
    "standard": "standard",
    "gated": "gated",
    "jumprelu": "jumprelu",
    "topk": "topk",
    "abstopk": "abstopk",  # this and the next are matched, but not run (hooked.encoder)
    "matching_pursuit": "matching_pursuit",
    "batchtopk": "jumprelu",
    "matryoshka_batchtopk": "jumprelu",
    "transcoder": "standard",
    "skip_transcoder": "standard",
    "jumprelu_transcoder": "jumprelu",
    "jumprelu_skip_transcoder": "jumprelu",
}
CROSS_LAYER = "its decoder writes to several layers, so a feature has no single direction in one residual stream"
_REFUSED = {
    "temporal": "its features depend on earlier tokens through attention, which an atlas cannot encode",
}
_NORMALISATIONS = ("none", "layer_norm", "expected_average_only_in", "constant_norm_rescale")
_OLDER = {"hook_name": "hook_point", "hook_head_index": "hook_point_head_index", "activation_fn": "activation_fn_str"}
# The text becomes a folder's name: nothing that could climb out of the atlas, and none but numbered layers.
_NEURONPEDIA = re.compile(r"[A-Za-z0-9][\w.\-]*/\d+-[\w.\-+]+")


@dataclass(frozen=True)
class Configuration:
    """One dictionary's configuration, in the terms of `atlas.folder.dictionary.Dictionary`."""

    architecture: str  # SAELens's name
    encoder: str  # standard, gated, jumprelu or topk; abstopk and matching_pursuit are not run
    d_sae: int  # number of features
    d_in: int  # width of what the encoder reads
    d_out: int  # width of a decoder row in its own space
    hook_name: str  # where decoder rows are written to
    hook_name_in: str  # what the encoder reads
    hf_hook_name: str | None  # Hugging Face module of hook_name, where the metadata has it
    hf_hook_name_in: str | None  # the same of hook_name_in
    model_name: str | None  # as the metadata has it
    neuronpedia_id: str | None  # `{model}/{layer}-{set}`
    k: int | None  # active features a token (topk and abstopk only)
    rescale: bool  # activations are chosen after multiplying by decoder norms (rescale_acts_by_decoder_norm)
    apply_b_dec_to_input: bool  # whether b_dec is subtracted from the encoder's input
    normalize_activations: str  # as SAELens names it
    norm_factor: float | None  # constant that the encoder's input is multiplied by (expected_average_only_in)
    centred_input: bool  # trained on centred weights (see `_centred`)
    prepend_bos: bool  # trained on contexts behind a start token

    @property
    def transcoder(self) -> bool:
        """Whether it reads one place and writes another: b_dec then belongs to the output."""
        return self.hook_name != self.hook_name_in


def read_configuration(raw: Mapping[str, Any], name: str) -> Configuration:
    """The configuration in `raw`, the content of a cfg.json; `name` is what errors call the dictionary.

    Raises IngestError where the architecture has no rows in one space, or a field is missing or of another form.
    """
    get = _reader(raw)
    architecture = _architecture(get, name)
    hook_name_in = _hook(get("hook_name"), "hook_name", name)
    transcoder = "transcoder" in architecture
    out = get("hook_name_out") or (None if transcoder else hook_name_in)
    hook_name = _hook(out, "hook_name_out", name)
    # A dictionary may say so by its hooks alone.
    transcoder = transcoder or hook_name != hook_name_in
    d_in, d_sae = _size(get("d_in"), "d_in", name), _size(get("d_sae"), "d_sae", name)
    if get("hook_head_index") is not None:
        raise IngestError(
            f"{name} reads a single attention head (hook_head_index); only those of all heads have a place"
        )
    neuronpedia_id = get("neuronpedia_id")
    hf_in = get("hf_hook_name")
    return Configuration(
        architecture=architecture,
        encoder=ENCODERS[architecture],
        d_sae=d_sae,
        d_in=d_in,
        d_out=_size(get("d_out"), "d_out", name) if transcoder and get("d_out") is not None else d_in,
        hook_name=hook_name,
        hook_name_in=hook_name_in,
        hf_hook_name=get("hf_hook_name_out") if transcoder else hf_in,
        hf_hook_name_in=hf_in,
        model_name=_model_name(get, name),
        neuronpedia_id=neuronpedia_id if _NEURONPEDIA.fullmatch(str(neuronpedia_id)) else None,
        k=_size(_top(get), "k", name, limit=d_sae) if ENCODERS[architecture] in ("topk", "abstopk") else None,
        rescale="topk" in architecture and get("rescale_acts_by_decoder_norm") is True,
        apply_b_dec_to_input=not transcoder and get("apply_b_dec_to_input") is not False,
        normalize_activations=_normalisation(get("normalize_activations"), name),
        norm_factor=None,
        centred_input=_centred(get, hook_name_in),
        # Silence means a start token, as in records that are older than the field.
        prepend_bos=get("prepend_bos") is not False,
    )


def _reader(raw: Mapping[str, Any]) -> Any:
    """A function from a field's name to its value, wherever this version keeps it; None where it does not."""
    metadata = raw.get("metadata")
    places = [raw, metadata if isinstance(metadata, Mapping) else {}]

    def get(field: str) -> Any:
        names = [field, _OLDER[field]] if field in _OLDER else [field]
        values = (place.get(name) for place in places for name in names)
        return next((value for value in values if value is not None), None)

    return get


def _architecture(get: Any, name: str) -> str:
    architecture = str(get("architecture") or "standard")
    if architecture == "standard" and get("activation_fn") == "topk":
        architecture = "topk"  # how files before SAELens 6 spell it
    if architecture in ENCODERS:
        return architecture
    if re.search("cross|clt", architecture):
        raise IngestError(f"{name} is a {architecture}: {CROSS_LAYER}")
    reason = _REFUSED.get(architecture, "this architecture is not known")
    raise IngestError(f"{name} is of architecture {architecture!r}: {reason}; known: {', '.join(ENCODERS)}")


def _model_name(get: Any, name: str) -> str | None:
    """The model, as `NAME@REVISION` where it is not the hub's newest: another revision has other weights."""
    model, loaded_with = get("model_name"), get("model_from_pretrained_kwargs") or {}
    revision = loaded_with.get("revision")
    if revision is None and loaded_with.get("checkpoint_value") is not None:
        revision = f"step{loaded_with['checkpoint_value']}"  # how the hub names Pythia's checkpoints
    if revision is None and loaded_with.get("checkpoint_index") is not None:
        return None  # which revision that is stands in TransformerLens alone: the user must say
    return f"{model}@{revision}" if model and revision not in (None, "main") else model


def _hook(value: Any, field: str, name: str) -> str:
    if isinstance(value, list | tuple):
        raise IngestError(f"{name} has several hooks ({field}): {CROSS_LAYER}")
    if not isinstance(value, str) or not value:
        raise IngestError(f"{name} has no {field} in its configuration; add one such as blocks.9.hook_resid_post")
    return value


def _size(value: Any, field: str, name: str, limit: int = 1 << 40) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= limit:
        raise IngestError(f"{name} has {field} {value!r} in its configuration, not a size")
    return value


def _top(get: Any) -> Any:
    arguments = get("activation_fn_kwargs")
    return get("k") if get("k") is not None else (arguments or {}).get("k")


def _normalisation(value: Any, name: str) -> str:
    if value is None or value is False:
        return "none"
    value = "expected_average_only_in" if value is True else value
    if value == "covariance_whitening":
        raise IngestError(f"{name} was saved before its whitening was folded in; save it with save_inference_model")
    if value not in _NORMALISATIONS:
        raise IngestError(f"{name} has normalize_activations {value!r}; known: {', '.join(_NORMALISATIONS)}")
    return str(value)


def _centred(get: Any, hook_name_in: str) -> bool:
    """Whether the mean over d_model is to be removed from what the encoder reads.

    SAELens loads its models as they are unless `model_from_pretrained_kwargs` says `center_writing_weights`.
    TransformerLens then centres what every block writes to the stream, but only in models with a LayerNorm (GPT-2,
    NeoX); with RMS norms it leaves the weights alone. Other inputs (hook_z, a normalised MLP input) stay the same.
    """
    loaded_with = get("model_from_pretrained_kwargs") or {}
    layer_norm = re.search(r"gpt|pythia|neox", str(get("model_name")).lower()) is not None
    in_stream = re.search(r"hook_(resid_\w+|mlp_out|attn_out)$", hook_name_in) is not None
    return bool(loaded_with.get("center_writing_weights")) and layer_norm and in_stream
