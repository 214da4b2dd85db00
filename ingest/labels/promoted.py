"""The tokens that a direction promotes and suppresses: what adding it to the last residual stream does to the logits.

    logits(d) = U (w ⊙ d)      U the unembedding, w the final norm's weight (1 + w for Gemma)

For LayerNorm models the mean over d_model is removed from d first, as the norm does. The norm's division by the token's
scale changes no order. Early layers' directions pass through later blocks first, so read their tokens with care.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from atlas.cli.progress import Progress
from atlas.folder.dictionary import Dictionary
from atlas.folder.rows_cache import open_rows

if TYPE_CHECKING:
    import pyarrow as pa
    import torch

TOKENS = 8  # promoted tokens kept a feature, and as many suppressed ones
_BLOCK = 1024  # rows at once: block × vocabulary logits


def promoted(
    rows: torch.Tensor, unembedding: torch.Tensor, scale: torch.Tensor, centre: bool, n: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids of the n most promoted tokens of each row and of the n most suppressed ones, int64 [n_rows, n] each.

    Args:
        rows: directions, [n_rows, d_model].
        unembedding: [vocabulary, d_model].
        scale: what the final norm multiplies by, [d_model].
        centre: whether the final norm removes the mean (LayerNorm).
    """
    import torch

    if centre:
        rows = rows - rows.mean(dim=1, keepdim=True)
    logits = (rows * scale) @ unembedding.T
    return torch.topk(logits, n, dim=1).indices, torch.topk(logits, n, dim=1, largest=False).indices


def columns_promoted(
    folder: Path, records: dict[str, Dictionary], model_name: str, device: str, progress: Progress
) -> dict[str, dict[str, pa.Array]]:
    """Columns `promotes` and `suppresses` (lists of tokens, most so first; null where dead) of each dictionary."""
    import pyarrow as pa
    import torch

    from hooked.load import load_model

    with progress.waiting(f"loading {model_name}"):
        model, tokenizer = load_model(model_name, device=device)
    unembedding = model.get_output_embeddings().weight.detach().float()
    scale, centre = _final_norm(model)
    columns = {}
    with torch.no_grad(), progress.steps("promoted tokens", len(records), "dictionary") as step:
        for id_, record in records.items():
            opened = open_rows(folder, record)
            tokens: dict[str, list[list[str] | None]] = {"promotes": [], "suppresses": []}
            for start in range(0, record.d_sae, _BLOCK):
                # A copy: mapped rows cannot be written to, and torch has no such tensors.
                rows = torch.from_numpy(opened.decoder[start : start + _BLOCK].copy()).to(unembedding.device)
                ends = promoted(rows, unembedding, scale, centre, TOKENS)
                for kept, ids in zip(tokens.values(), ends, strict=True):
                    kept += [_words(tokenizer, row) for row in ids.cpu().numpy()]
            dead = ~opened.alive
            columns[id_] = {name: pa.array(kept, pa.list_(pa.string()), mask=dead) for name, kept in tokens.items()}
            step(1)
    return columns


def _final_norm(model: Any) -> tuple[torch.Tensor, bool]:
    """What the norm before the unembedding multiplies by, and whether it removes the mean."""
    import torch

    from hooked.hookpoints import blocks_path, model_family

    # It stands beside the language model's blocks; an image tower and its projector have norms of the same name.
    family = model_family(model)
    beside = blocks_path(model).rpartition(".")[0]
    norm = model.get_submodule(f"{beside}.{family.final_norm.rpartition('.')[2]}".lstrip("."))
    centres = isinstance(norm, torch.nn.LayerNorm) or getattr(norm, "bias", None) is not None
    return norm.weight.detach().float() + family.norm_offset, centres


def _words(tokenizer: Any, ids: Any) -> list[str]:
    """Tokens as a person reads them, without repeats that differ in case or space only."""
    # One by one: together they would be joined into a text.
    words = [tokenizer.decode([int(i)]).strip() for i in ids]
    return list({word.lower(): word for word in reversed(words) if word}.values())[::-1]
