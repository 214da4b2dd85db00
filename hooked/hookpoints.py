"""Find the module of an actual Hugging Face model at which a dictionary's place is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from atlas.errors import ModelError
from atlas.folder.dictionary import Dictionary
from hooked.families import Family, family_of
from hooked.hook_names import Place, place_of, writes_at

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.utils.hooks import RemovableHandle

    OnHidden = Callable[[Tensor, Tensor | None], Tensor | None]

# Where multimodal models and bare base models keep the blocks of their language model.
_TEXT_PREFIXES = ("model.language_model.", "language_model.model.", "language_model.", "")


@dataclass(frozen=True)
class HookPoint:
    """One side of one module."""

    name: str  # path from the model's root, e.g. model.layers.9.mlp
    side: str  # input or output
    module: nn.Module

    def register(self, function: OnHidden) -> RemovableHandle:
        """Call `function` in every pass with the hidden states here; returns the hook's handle.

        It is given them, `[batch, positions, width]`, and at an output the module's input, where that was positional.
        What it returns takes their place; None leaves them as they are.
        """

        # Not closures: a copy of the module would share them unseen, whatever `function` says of being copied.
        if self.side == "input":
            return self.module.register_forward_pre_hook(partial(_on_input, function), with_kwargs=True)
        return self.module.register_forward_hook(partial(_on_output, function))


def _on_input(function: OnHidden, _module: Any, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
    changed = function(arguments[0] if arguments else keywords["hidden_states"], None)
    if changed is None:
        return None
    if arguments:
        return (changed, *arguments[1:]), keywords
    return arguments, keywords | {"hidden_states": changed}


def _on_output(function: OnHidden, _module: Any, arguments: tuple[Any, ...], output: Any) -> Any:
    several = isinstance(output, tuple)
    changed = function(output[0] if several else output, arguments[0] if arguments else None)
    return (changed, *output[1:]) if several and changed is not None else changed


def write_point(model: Any, record: Dictionary) -> HookPoint:
    """Where the dictionary's residual-space directions are added; raises ModelError."""
    # The metadata's module of a mapped dictionary is where its head-space rows are, not where they reach the stream.
    return resolve(model, writes_at(record.hook_name), None if record.mapped else record.hf_hook_name)


def read_point(model: Any, record: Dictionary) -> HookPoint:
    """Where the dictionary's encoder reads; raises ModelError."""
    return resolve(model, place_of(record.hook_name_in), record.hf_hook_name_in)


def resolve(model: Any, place: Place, hf_hook_name: str | None = None) -> HookPoint:
    """The module at a place: the metadata's own name where the model has it, else by family.

    `hf_hook_name` may end in `.input` or `.output` (Gemma Scope 2). Raises ModelError naming what the model has.
    """
    family = model_family(model)
    blocks = blocks_path(model)
    if hf_hook_name:
        name, _, side = hf_hook_name.rpartition(".")
        if side not in ("input", "output"):
            name, side = hf_hook_name, place.side
        # The metadata's path is the plain model's; a multimodal or wrapped one keeps its blocks deeper.
        moved = blocks + name.removeprefix(family.layers) if name.startswith(family.layers + ".") else name
        for candidate in (name, moved):
            if (found := _module(model, candidate)) is not None:
                return HookPoint(candidate, side, found)
    name = blocks + place.module(family).removeprefix(family.layers)
    if (found := _module(model, name)) is not None:
        return HookPoint(name, place.side, found)
    count = sum(1 for _ in model.get_submodule(blocks).children())
    if place.layer >= count:
        raise ModelError(
            f"the dictionary sits at layer {place.layer}, but the model has layers 0 to {count - 1} ({blocks}): "
            "is it the model that the dictionary was trained on?"
        )
    block = f"{blocks}.{place.layer}"
    has = ", ".join(child for child, _ in model.get_submodule(block).named_children())
    raise ModelError(f"the model has no module {name}; {block} has: {has}")


def _module(model: Any, path: str) -> nn.Module | None:
    """The module at a path; None where there is none. Far cheaper than a look at all modules."""
    try:
        found: nn.Module = model.get_submodule(path)
    except AttributeError:
        return None
    return found


def blocks_path(model: Any) -> str:
    """Path of the list of blocks, e.g. `model.layers`, also in a multimodal or wrapped (PEFT) model."""
    family = model_family(model)
    if type(_module(model, family.layers)).__name__ == "ModuleList":
        return family.layers
    last = family.layers.rpartition(".")[2]
    candidates = (family.layers, *(prefix + last for prefix in _TEXT_PREFIXES))
    names = [str(name) for name, module in model.named_modules() if type(module).__name__ == "ModuleList"]
    for candidate in candidates:
        for name in sorted(names, key=len):
            if name == candidate or (("." in candidate) and name.endswith("." + candidate)):
                return name
    raise ModelError(f"the model has no list of blocks {family.layers}; its lists: {', '.join(names) or 'none'}")


def learned_positions(model: Any) -> int | None:
    """How many positions the model has learned; None where it computes them and knows no end."""
    family = model_family(model)
    if family.positions is None:
        return None
    found = model.get_submodule(blocks_path(model).removesuffix(family.layers) + family.positions)
    return int(found.num_embeddings)


def model_family(model: Any) -> Family:
    """The family of a loaded model; raises ModelError with the known ones."""
    return family_of(_model_type(model))


def _model_type(model: Any) -> str:
    """`model_type` of the language model, in a multimodal one that of its text part."""
    config = getattr(model, "config", None)
    if type(model).__name__ == "TransformerBridge":
        raise ModelError("a TransformerBridge keeps its own hooks: steer the model inside it, bridge.original_model")
    if config is None or not hasattr(config, "model_type"):
        raise ModelError(
            f"{type(model).__name__} is not a Hugging Face model: it has no config; load_model() loads one by name"
        )
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    return str(text.model_type)
