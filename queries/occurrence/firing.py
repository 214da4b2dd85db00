"""One dictionary at one token: what is there, and what it is made of.

    there = Σ activation · reach · unit row  +  base  +  error

`base` is what the dictionary puts there without any feature (b_dec, and the mean that it takes away before it encodes);
`error` is what it cannot reconstruct. All of it in the residual stream, in float64; the activations are the encoder's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from atlas.folder.dictionary import Dictionary, Rows
from hooked.direct_path import NORMED
from hooked.encoder import Encoder
from hooked.hook_names import writes_at
from hooked.hookpoints import HookPoint, model_family, read_point, resolve, write_point

if TYPE_CHECKING:
    from atlas.atlas import Atlas

READ, WRITE, NORM = "read", "write", "norm"
Seen = Mapping[tuple[str, str], torch.Tensor]  # by dictionary and what for: hidden states [batch, columns, width]


def points_of(model: Any, record: Dictionary) -> dict[tuple[str, str], HookPoint]:
    """Where a dictionary is looked at: what it reads, what it writes, what an output norm after it divides."""
    points = {(record.id, READ): read_point(model, record)}
    if _elsewhere(record):
        points[record.id, WRITE] = write_point(model, record)
    if record.mapped == NORMED:
        norm = resolve(model, writes_at(record.hook_name))
        points[record.id, NORM] = HookPoint(norm.name, "input", norm.module)
    return points


def _elsewhere(record: Dictionary) -> bool:
    """Whether what it writes is not what it reads: transcoders, rows of head space."""
    return record.hook_name_in != record.hook_name or record.mapped is not None


@dataclass(frozen=True)
class Firing:
    """What a dictionary does at one token."""

    record: Dictionary
    rows: Rows
    encoder: Encoder  # of all its features
    read: torch.Tensor  # float32 [d_in], what its encoder reads
    there: torch.Tensor  # float64 [d_model], what is at its place in the stream's path
    active: np.ndarray  # int64 [m], features that fire
    values: np.ndarray  # float64 [m], their activations
    writes: torch.Tensor  # float64 [m, d_model], what each of them adds there
    base: torch.Tensor  # float64 [d_model]

    @classmethod
    def of(cls, atlas: Atlas, model: Any, record: Dictionary, seen: Seen, column: int) -> Firing:
        """At one column of the only context that was seen; raises CorruptAtlas, PlanError (an encoder not run)."""
        rows = atlas.rows(record.id)
        encoder = Encoder.of(record, rows)
        read = seen[record.id, READ][0, column].float().cpu()
        activations, reach = encoder(read)
        active = np.flatnonzero(activations.numpy() > 0)
        rows.check(record, active.tolist())
        unit = torch.from_numpy(np.array(rows.decoder[active], dtype=np.float64))
        values = activations.double()[active]
        scale = _norm_scale(model, record, seen, column)
        writes = (values * reach.double()[active] * scale)[:, None] * unit
        there = seen[record.id, WRITE][0, column].double().cpu() if _elsewhere(record) else read.double()
        base = _base(model, record, rows, encoder, read, scale)
        return cls(record, rows, encoder, read, there, active, values.numpy(), writes, base)

    @cached_property
    def error(self) -> torch.Tensor:
        """float64 [d_model]: what it does not reconstruct."""
        return self.there - self.base - self.writes.sum(dim=0)


def _norm_scale(model: Any, record: Dictionary, seen: Seen, column: int) -> float:
    """What an output norm multiplies by at this token besides its weight; 1 where none follows."""
    if record.mapped != NORMED:
        return 1.0
    norm = resolve(model, writes_at(record.hook_name)).module
    eps = float(getattr(norm, "eps", getattr(norm, "variance_epsilon", 0.0)))
    given = seen[record.id, NORM][0, column].double()
    return float((given.pow(2).mean() + eps).rsqrt())


def _base(
    model: Any, record: Dictionary, rows: Rows, encoder: Encoder, read: torch.Tensor, norm_scale: float
) -> torch.Tensor:
    """float64 [d_model]: what is reconstructed where no feature fires."""
    if "b_dec" not in rows.vectors:  # a transcoder's belongs to its output and is not kept; it counts as error
        return torch.zeros(record.d_model, dtype=torch.float64)
    b_dec = torch.from_numpy(np.array(rows.vectors["b_dec"], dtype=np.float64))
    mean, factor = encoder.removed(read)
    base = b_dec * factor + mean
    if record.mapped is None:
        return base
    # Head space: through the projection, as the model does it.
    projection: Any = read_point(model, record).module
    weight = next(projection.parameters())
    with torch.inference_mode():
        mapped: torch.Tensor = projection(base.to(weight.device, weight.dtype)).double().cpu()
    if record.mapped == NORMED:
        norm: Any = resolve(model, writes_at(record.hook_name)).module
        mapped = mapped * (norm.weight.detach().double().cpu() + model_family(model).norm_offset) * norm_scale
    return mapped
