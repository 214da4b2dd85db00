"""A dictionary of frozen random rows in place of a trained one: the control that arXiv 2602.14111 asks for.

As many unit rows as the dictionary has, drawn with its rows' second moment, so that they share its spectrum, and never
trained. At a token as many of them are active as of the trained ones, those along which the state (less b_dec) is
longest, and each is active by that length: its removal takes all that the state has along it, which no trained encoder
could exceed. What such rows do to a target was not learned.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from queries.evidence.readers import Reader
from queries.evidence.sources import Source

_BLOCK = 4096  # rows at once
_RIDGE = 1e-6  # added to a second moment of trace 1, which may lack directions


@dataclass(frozen=True)
class Frozen:
    """Random rows in place of an earlier dictionary's, and the best matches between them and the later features."""

    rows: torch.Tensor  # float32 [d_sae, d_model], unit rows
    centre: torch.Tensor  # float32 [d_model], subtracted from the state
    best: np.ndarray  # int64 [d_sae later], each later feature's best match among the rows
    cosine: np.ndarray  # float32 [d_sae later], theirs
    given: np.ndarray  # int64 [d_sae], each row's best match among the later features
    given_cosine: np.ndarray  # float32 [d_sae], theirs

    @classmethod
    def of(cls, pair: Source, reader: Reader, seed: int) -> Frozen | None:
        """In place of the pair's earlier dictionary; None where it reads another place than it writes to."""
        record, rows = reader.record, reader.rows
        if record.hook_name_in != record.hook_name or record.mapped or record.normalize_activations != "none":
            return None
        rng = np.random.default_rng([seed, record.depth])
        moment = np.zeros((record.d_model, record.d_model))
        for start in range(0, record.d_sae, _BLOCK):
            block = rows.decoder[start : start + _BLOCK].astype(np.float64)
            moment += block.T @ block
        moment /= np.trace(moment)
        shape = np.linalg.cholesky(moment + _RIDGE * np.eye(len(moment)))
        drawn = rng.standard_normal((record.d_sae, record.d_model)) @ shape.T
        unit = (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)
        best, given = np.empty(pair.later.d_sae, dtype=np.int64), np.zeros(record.d_sae, dtype=np.int64)
        cosine, given_cosine = np.empty(len(best), np.float32), np.full(record.d_sae, -2, np.float32)
        for start in range(0, len(best), _BLOCK):
            part = slice(start, start + _BLOCK)
            products = pair.rows[0].decoder[part] @ unit.T
            best[part], cosine[part] = products.argmax(axis=1), products.max(axis=1)
            above = products.max(axis=0) > given_cosine
            given[above] = start + products[:, above].argmax(axis=0)
            given_cosine[above] = products[:, above].max(axis=0)
        device = reader.encoder.norms.device
        centre = torch.from_numpy(rows.vectors["b_dec"]).to(device)
        return cls(torch.from_numpy(unit).to(device), centre, best, cosine, given, given_cosine)

    def writes(self, hidden: torch.Tensor, count: int) -> tuple[np.ndarray, torch.Tensor]:
        """The `count` rows active at a hidden state `[d_model]`, int64 [m], and what each writes, float32 [m, d]."""
        along = self.rows @ (hidden.float() - self.centre)
        values, active = along.topk(min(count, len(along)))
        kept = values > 0
        return active[kept].cpu().numpy(), values[kept][:, None] * self.rows[active[kept]]

    def lengths(self, hidden: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
        """Activations float32 [n, d_sae] at hidden states `[n, d_model]`: at each its `counts` [n] longest, else 0."""
        along = (hidden.float() - self.centre) @ self.rows.T
        values, active = along.topk(min(int(counts.max()), along.shape[1]), dim=1)
        kept = torch.arange(values.shape[1], device=values.device) < counts[:, None]
        return torch.zeros_like(along).scatter(1, active, values.clamp(min=0) * kept)

    def firsts(self, direction: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Later features, rows and cosines of the best matches by target, or by source, as `Source.firsts`."""
        if direction == "target":
            return np.arange(len(self.best)), self.best, self.cosine
        return self.given, np.arange(len(self.given)), self.given_cosine
