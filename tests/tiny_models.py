"""Tiny random models of every family, a tokenizer for them, and planted dictionaries to steer with."""

from __future__ import annotations

from typing import Any

import torch
import transformers

WIDTH, HEADS, LAYERS, VOCABULARY = 32, 4, 4, 64
# o_proj's input is wider than the stream here, as in Gemma: a shape error cannot hide.
HEAD_DIM = 12

_COMMON = {
    "vocab_size": VOCABULARY,
    "hidden_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "intermediate_size": 48,
    "max_position_embeddings": 128,
    "bos_token_id": 1,
    "eos_token_id": 0,
    "pad_token_id": 0,
}
_GROUPED = _COMMON | {"num_key_value_heads": 2, "head_dim": HEAD_DIM}
_CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": (
        "GPT2Config",
        {"vocab_size": VOCABULARY, "n_embd": WIDTH, "n_layer": LAYERS, "n_head": HEADS, "n_positions": 128}
        | {"bos_token_id": 1, "eos_token_id": 0},
    ),
    "llama": ("LlamaConfig", _GROUPED),
    "mistral": ("MistralConfig", _GROUPED),
    "qwen2": ("Qwen2Config", _COMMON | {"num_key_value_heads": 2}),
    "qwen3": ("Qwen3Config", _GROUPED),
    "gemma": ("GemmaConfig", _GROUPED),
    "gemma2": ("Gemma2Config", _GROUPED | {"sliding_window": 16, "query_pre_attn_scalar": HEAD_DIM}),
    "gemma3_text": ("Gemma3TextConfig", _GROUPED | {"sliding_window": 16, "query_pre_attn_scalar": HEAD_DIM}),
    "gpt_neox": ("GPTNeoXConfig", _COMMON | {"rotary_pct": 0.5}),
}
FAMILIES = tuple(_CONFIGS)


def tiny_model(family: str, *, seed: int = 0, dtype: torch.dtype = torch.float32) -> Any:
    """A random causal language model with 4 layers of width 32; weights large enough that text depends on them."""
    name, values = _CONFIGS[family]
    config = getattr(transformers, name)(**values)
    return _randomised(transformers.AutoModelForCausalLM.from_config(config), seed).to(dtype)


def tiny_multimodal(*, seed: int = 0) -> Any:
    """A random Gemma 3 with an image tower beside its language model."""
    text = transformers.Gemma3TextConfig(**_CONFIGS["gemma3_text"][1])
    vision = transformers.SiglipVisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14
    )
    config = transformers.Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4)
    return _randomised(transformers.Gemma3ForConditionalGeneration(config), seed)


def _randomised(model: Any, seed: int) -> Any:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(noise * 0.25 if parameter.ndim > 1 else parameter + noise * 0.2)
            if "norm" not in name and parameter.ndim == 1:
                parameter.mul_(0.5)
    return model.eval()


def tiny_tokenizer(*, padding: bool = False) -> Any:
    """A tokenizer of the words w2 … w63, with BOS and EOS, and a padding token only where asked."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = {"</s>": 0, "<s>": 1} | {f"w{index}": index for index in range(2, VOCABULARY)}
    core = Tokenizer(models.WordLevel(words, unk_token="w2"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    extra = {"pad_token": "</s>"} if padding else {}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>", **extra)


def module_of(model: Any, path: str) -> Any:
    """The module at a path, found by hand: independent of hooked.hookpoints."""
    for part in path.split("."):
        model = model[int(part)] if part.isdigit() else getattr(model, part)
    return model
