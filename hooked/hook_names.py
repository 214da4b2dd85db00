"""SAELens hook names and what they mean: site, layer, and which side of which module of a block."""

from __future__ import annotations

import re
from dataclasses import dataclass

from atlas.errors import IngestError
from atlas.ids import ATT, MLP, RES
from hooked.families import Family

# hook within a block -> (site, layers to add, attribute of Family or "" for the block itself, side of that module).
# `hook_resid_pre` of block L is the stream after block L−1.
_HOOKS = {
    "hook_resid_post": (RES, 0, "", "output"),
    "hook_resid_pre": (RES, -1, "", "input"),
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
_NAME = re.compile(r"(?:blocks|layers)\.(\d+)\.(.+)")


@dataclass(frozen=True)
class Place:
    """A place in the forward pass at which a hook can be put, for any family."""

    layer: int  # number in the hook's name: the block that holds the module
    attribute: str  # attribute of Family that names the module; "" for the block itself
    side: str  # input or output of that module

    def module(self, family: Family) -> str:
        """Path of the module from the model's root, e.g. `model.layers.9.mlp`."""
        block = f"{family.layers}.{self.layer}"
        return f"{block}.{getattr(family, self.attribute)}" if self.attribute else block


def split_hook(hook_name: str) -> tuple[int, str]:
    """Layer number and hook within the block; raises IngestError where the name is of another form."""
    found = _NAME.fullmatch(hook_name)
    if not found:
        raise IngestError(f"hook {hook_name!r} is not of the form blocks.LAYER.HOOK; known hooks: {', '.join(_HOOKS)}")
    return int(found[1]), found[2]


def site_of(hook_name: str) -> tuple[str, int]:
    """Site and layer of the place that decoder rows are written to; raises IngestError with the known hooks."""
    number, hook = split_hook(hook_name)
    if hook not in _HOOKS:
        raise IngestError(
            f"hook {hook_name!r} is not a place in the residual stream's path; known: {', '.join(_HOOKS)}"
        )
    site, shift, _, _ = _HOOKS[hook]
    return site, number + shift


def place_of(hook_name: str) -> Place:
    """The place of a hook, also of those that only encoders read; raises IngestError with the known ones."""
    number, hook = split_hook(hook_name)
    if hook in _HOOKS:
        return Place(number, _HOOKS[hook][2], _HOOKS[hook][3])
    if hook in _INPUTS:
        return Place(number, *_INPUTS[hook])
    raise IngestError(f"hook {hook_name!r} is not known; known: {', '.join([*_HOOKS, *_INPUTS])}")


def writes_at(hook_name: str) -> Place:
    """The place at which a direction of this dictionary is added: for `hook_z` rows, mapped, the attention's output."""
    place = place_of(hook_name)
    return Place(place.layer, "attention", "output") if place.attribute == "o_proj" else place
