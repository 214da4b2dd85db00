"""Hook names and what they mean: site, layer, and which side of which module of a block.

One place has several names: TransformerLens's (`blocks.9.hook_resid_post`, which SAELens uses), those of its bridge
(`blocks.9.hook_out`), and the Hugging Face module's (`model.layers.9`, what SAELens's runner writes with
AutoModelForCausalLM). All are brought to the first form; where the same module means two things, its family decides.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from atlas.errors import IngestError, ModelError
from atlas.ids import ATT, MLP, RES, depth
from hooked.families import FAMILIES, Family

# hook within a block -> (site, layers to add, attribute of Family or "" for the block itself, side of that module).
# `hook_resid_pre` of block L is the stream after block L−1; `hook_resid_mid` is what the norm before the MLP reads.
_HOOKS = {
    "hook_resid_post": (RES, 0, "", "output"),
    "hook_resid_pre": (RES, -1, "", "input"),
    "hook_resid_mid": (RES, 0, "mid", "input"),
    "hook_mlp_out": (MLP, 0, "mlp", "output"),
    "hook_attn_out": (ATT, 0, "attention", "output"),
    "attn.hook_z": (ATT, 0, "o_proj", "input"),
}
# Places that only encoders read: transcoders' inputs.
_INPUTS = {
    "hook_mlp_in": ("mlp_input", "input"),
    "mlp.hook_in": ("mlp_input", "input"),
    "ln2.hook_normalized": ("mlp_input", "input"),
}
# The bridge's names; `…_post` norms are the output norms of Gemma 2 and 3.
_BRIDGE = {
    "hook_out": "hook_resid_post",
    "hook_in": "hook_resid_pre",
    "ln2.hook_in": "hook_resid_mid",
    "attn.hook_out": "hook_attn_out",
    "mlp.hook_out": "hook_mlp_out",
    "ln1_post.hook_out": "hook_attn_out",
    "ln2_post.hook_out": "hook_mlp_out",
    "attn.o.hook_in": "attn.hook_z",
}
_BEFORE_NORM, _AFTER_NORM = ("attn.hook_out", "mlp.hook_out"), ("ln1_post.hook_out", "ln2_post.hook_out")
_NEURONS = re.compile(
    r"mlp\.(hook_(pre|post|pre_linear)|(out|in|gate)\.hook_\w+|\w*act\w*|(gate|up|down)_proj.*|c_fc.*)"
)
_NAME = re.compile(r"(?:blocks|layers)\.(\d+)\.(.*hook_\w+)")
# A language model's blocks from the root: as they are, nested in a multimodal model, of a base model, wrapped (PEFT).
_MODULE = re.compile(
    r"(?:base_model\.model\.)?(transformer\.h|gpt_neox\.layers|h|"
    r"(?:(?:model\.)?language_model\.)?(?:model\.)?layers)\.(\d+)(?:\.(.+?))??(?:\.(input|output))?"
)
_GPT2, _NEOX, _LLAMA = (next(f for f in FAMILIES if f.name == name) for name in ("gpt2", "gpt_neox", "llama"))


@dataclass(frozen=True)
class Place:
    """A place in the forward pass at which a hook can be put, for any family."""

    layer: int  # number in the hook's name: the block that holds the module
    attribute: str  # attribute of Family that names the module; "" for the block itself
    side: str  # input or output of that module

    def module(self, family: Family) -> str:
        """Path of the module from the model's root, e.g. `model.layers.9.mlp`; raises ModelError where it has none."""
        block = f"{family.layers}.{self.layer}"
        if not self.attribute:
            return block
        module = getattr(family, self.attribute)
        if module is None:
            raise ModelError(f"blocks of {family.name} have no hook_resid_mid: {_PARALLEL}")
        return f"{block}.{module}"


_PARALLEL = "attention and MLP run in parallel there, so no stream is between them"


def split_hook(hook_name: str, family: Family | None = None) -> tuple[int, str]:
    """Layer number and hook within the block, by TransformerLens's name; raises IngestError where it is no place.

    `family` decides what a module's output is; without it, as in Llama, unless the path shows GPT-2 or NeoX.
    """
    if found := _NAME.fullmatch(hook_name):
        number, hook = int(found[1]), _of_bridge(hook_name, found[2], family)
        _check_neurons(hook_name, hook)
    elif found := _MODULE.fullmatch(hook_name):
        # These paths show their family; `layers` is that of several.
        root = {"transformer.h": _GPT2, "h": _GPT2, "gpt_neox.layers": _NEOX}.get(found[1])
        number, hook = int(found[2]), _of_module(hook_name, found[3] or "", found[4], root or family or _LLAMA)
    else:
        raise IngestError(
            f"hook {hook_name!r} is not of the form blocks.LAYER.HOOK, nor a block's module such as model.layers.9; "
            f"known hooks: {', '.join(_HOOKS)}"
        )
    if hook == "hook_resid_mid" and family is not None and family.mid is None:
        raise IngestError(f"hook {hook_name!r} does not exist in models of type {family.name}: {_PARALLEL}")
    return number, hook


def canonical_hook(hook_name: str, family: Family | None = None) -> str:
    """TransformerLens's name of the same place, e.g. `blocks.9.hook_resid_post` of `model.layers.9`."""
    number, hook = split_hook(hook_name, family)
    return f"blocks.{number}.{hook}"


def asks_family(hook_name: str) -> bool:
    """Whether the same name is another place, or none, in some family."""
    found = _NAME.fullmatch(hook_name)
    return found is None or found[2] in ("hook_resid_mid", *_BRIDGE)


def _of_bridge(hook_name: str, hook: str, family: Family | None) -> str:
    normed = family is not None and family.output_norm is not None
    if hook in _BEFORE_NORM and normed:
        raise _before_norm(hook_name, ", ".join(_AFTER_NORM))
    if hook in _AFTER_NORM and family is not None and not normed:
        raise IngestError(f"hook {hook_name!r} does not exist in models of type {family.name}")
    return _BRIDGE.get(hook, hook)


def _of_module(hook_name: str, module: str, side: str | None, family: Family) -> str:
    """The hook at one side (None: output) of a block's module."""
    places = {(getattr(family, attribute) if attribute else "", s): h for h, (_, _, attribute, s) in _HOOKS.items()}
    # What the norm before the MLP puts out is what the MLP reads.
    places |= {(family.mlp_input, "input"): "mlp.hook_in", (family.mid, "output"): "mlp.hook_in"}
    if family.output_norm is None:
        places[family.o_proj, "output"] = "hook_attn_out"
    elif (side or "output") == "output" and module in ("mlp", "self_attn", family.o_proj):
        raise _before_norm(hook_name, f"{family.attention}, {family.mlp}")
    found = places.get((module, side or "output"))
    if found is None:
        _check_neurons(hook_name, f"{module}.{side}" if side else module)
        known = ", ".join(f"{name}.{s}" if s == "input" else name for name, s in places if name)
        raise IngestError(f"hook {hook_name!r} is not a place in the residual stream's path; modules that are: {known}")
    return found


def _check_neurons(hook_name: str, hook: str) -> None:
    if _NEURONS.fullmatch(hook):
        raise IngestError(
            f"hook {hook_name!r} is not in residual space: its rows are directions among the MLP's neurons, before "
            "they are written to the stream"
        )


def _before_norm(hook_name: str, names: str) -> IngestError:
    return IngestError(
        f"hook {hook_name!r} is no place in the residual stream's path: in Gemma 2 and 3 it comes before the output "
        f"norm, which turns its rows before they reach the stream; after the norm: {names}"
    )


def site_of(hook_name: str) -> tuple[str, int]:
    """Site and layer of the place that decoder rows are written to; raises IngestError with the known hooks."""
    number, hook = split_hook(hook_name)
    if hook not in _HOOKS:
        raise IngestError(
            f"hook {hook_name!r} is not a place in the residual stream's path; known: {', '.join(_HOOKS)}"
        )
    site, shift, _, _ = _HOOKS[hook]
    return site, number + shift


def is_mid(hook_name: str) -> bool:
    """Whether it is the stream between a block's attention and its MLP."""
    return split_hook(hook_name)[1] == "hook_resid_mid"


def depth_of(hook_name: str) -> int:
    """Order along the forward pass (`atlas.ids.depth`)."""
    site, layer = site_of(hook_name)
    return depth(site, layer, mid=is_mid(hook_name))


def place_of(hook_name: str) -> Place:
    """The place of a hook, also of those that only encoders read; raises IngestError with the known ones."""
    number, hook = split_hook(hook_name)
    if hook in _HOOKS:
        return Place(number, _HOOKS[hook][2], _HOOKS[hook][3])
    if hook in _INPUTS:
        return Place(number, *_INPUTS[hook])
    raise IngestError(f"hook {hook_name!r} is not known; known: {', '.join([*_HOOKS, *_INPUTS])}")


def writes_at(hook_name: str) -> Place:
    """The place at which a direction of this dictionary is added.

    For `hook_z` rows, mapped, the attention's output; for `hook_resid_mid` too: what reads that stream is a norm, whose
    input may be changed without changing the stream.
    """
    place = place_of(hook_name)
    return Place(place.layer, "attention", "output") if place.attribute in ("o_proj", "mid") else place
