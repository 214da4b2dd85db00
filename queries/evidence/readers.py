"""Dictionaries of an atlas that can be run: their records, rows and encoders."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from atlas.atlas import Atlas
from atlas.folder.dictionary import Dictionary, Rows
from hooked.encoder import Encoder


@dataclass(frozen=True)
class Reader:
    """A dictionary that can be run."""

    record: Dictionary
    rows: Rows
    encoder: Encoder

    def writes(self, hidden: torch.Tensor) -> tuple[np.ndarray, torch.Tensor]:
        """Active features at one hidden state `[d_in]`, int64 [m], and what each writes, float32 [m, d_model]."""
        values, reach = self.encoder(hidden)
        written = values * reach
        active = np.flatnonzero((values > 0).cpu().numpy())
        unit = torch.from_numpy(np.array(self.rows.decoder[active])).to(written.device)
        return active, written[active][:, None] * unit


def readers_of(atlas: Atlas, records: Mapping[str, Dictionary], model: Any) -> dict[str, Reader]:
    """Readers of these dictionaries by id, on the model's device."""
    opened = {id_: atlas.rows(id_) for id_ in records}
    return {id_: Reader(d, opened[id_], Encoder.of(d, opened[id_]).to(model.device)) for id_, d in records.items()}
