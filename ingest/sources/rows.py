"""Decoder and encoder rows of one source as an atlas keeps them, block by block.

Two foldings, as SAELens itself does them. A constant factor c on the encoder's input (`expected_average_only_in`):
W_enc·c, W_dec/c, b_dec/c. Decoder norms n in the choice of active features (`rescale_acts_by_decoder_norm`): W_enc·n,
b_enc·n, W_dec/n. After both, an activation a adds a · norms[i] · decoder[i] to the stream.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

import numpy as np

from atlas.errors import IngestError
from atlas.folder.stored_rows import as_float32
from ingest.sources.find import Source
from ingest.sources.head_space import HeadMap
from ingest.sources.tensors import Tensors

_BLOCK = 1 << 23  # elements of a matrix that are in memory at once
ENCODER_VECTORS = {  # what each encoder needs besides its rows
    "standard": ("b_enc",),
    "jumprelu": ("b_enc", "threshold"),
    "topk": ("b_enc",),
    "gated": ("b_gate", "b_mag", "r_mag"),
    "abstopk": ("b_enc",),
    "matching_pursuit": (),
}
_SWITCHES = ("b_enc", "b_gate")  # −∞ here and the feature is off, whatever the rest
_log = logging.getLogger(__name__)


class DecoderRows:
    """Decoder rows as an atlas keeps them; `norms`, `folded`, `divisors` are full once every block has been taken."""

    def __init__(self, source: Source, tensors: Tensors, mapping: HeadMap | None) -> None:
        self.configuration = source.configuration
        self.tensors = tensors
        self.mapping = mapping
        self.norms = np.zeros(source.d_sae, np.float32)  # in the residual stream, what an activation of 1 adds
        self.folded = np.ones(source.d_sae, np.float32)  # what each encoder row is multiplied by

    def blocks(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """[n, d_model] twice: rows as they are kept, and as they are read, float32 unit rows, zero where dead."""
        factor = self.configuration.norm_factor or 1.0
        for start, stop in _spans(self.configuration.d_sae, self.configuration.d_out):
            kept = self.tensors.rows("W_dec", start, stop)
            rows = as_float32(kept)
            if factor != 1:
                rows = rows / np.float32(factor)
            if self.configuration.rescale:
                # In the dictionary's own space, before rows of heads are mapped: its trainer chose by these norms.
                self.folded[start:stop] = _norms(rows)
                rows = _unit(rows)[0]
            if self.mapping is not None:
                rows = self.mapping.rows(rows)
            unit, norms = _unit(rows)
            self.norms[start:stop] = norms
            kept[norms == 0] = np.zeros((), kept.dtype)
            # What a mapping gives is no number of the source's, and made anew for a few rows might differ in a bit.
            yield (kept if self.mapping is None else unit), unit

    def divisors(self) -> np.ndarray | None:
        """float32 [m, d_sae]: what rows as they are kept are divided by, one after the other; None: by nothing."""
        if self.mapping is not None:
            return None
        steps = [self.norms]
        if self.configuration.rescale:
            steps.insert(0, self.folded)
        if (factor := self.configuration.norm_factor or 1.0) != 1:
            steps.insert(0, np.full_like(self.norms, factor))
        # Dead rows are kept as zeros, and stay so.
        return np.stack([np.where(self.norms > 0, step, np.float32(1)) for step in steps])


class EncoderRows:
    """Encoder rows and vectors; a feature with a value that is not finite is switched off, so that it never fires."""

    def __init__(self, source: Source, tensors: Tensors, folded: np.ndarray) -> None:
        self.source = source
        self.configuration = source.configuration
        self.tensors = tensors
        self.folded = folded
        self.broken = np.zeros(source.d_sae, bool)

    def blocks(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """[n, d_in] twice: encoder rows as they are kept, and as they are read, float32."""
        factors = self.factors()
        for start, stop in _spans(self.configuration.d_sae, self.configuration.d_in):
            kept = self._rows(start, stop)
            rows = as_float32(kept)
            if factors is not None:
                rows = rows * factors[start:stop, None]
            self.broken[start:stop] = ~np.isfinite(rows).all(axis=1)
            for form in (kept, rows):  # one and the same, or not
                form[self.broken[start:stop]] = np.zeros((), form.dtype)
            yield kept, rows

    def factors(self) -> np.ndarray | None:
        """float32 [d_sae]: what rows as they are kept are multiplied by; None: by nothing."""
        factors: np.ndarray = np.float32(self.configuration.norm_factor or 1.0) * self.folded
        return None if (factors == 1).all() else factors

    def _rows(self, start: int, stop: int) -> np.ndarray:
        if self.configuration.encoder == "matching_pursuit":  # searches among the decoder rows
            return self.tensors.rows("W_dec", start, stop)
        return self.tensors.columns("W_enc", start, stop)

    def vectors(self) -> dict[str, np.ndarray]:
        """float32: what activation needs, by SAELens's names; after all blocks have been taken."""
        vectors = {name: self._vector(name) for name in ENCODER_VECTORS[self.configuration.encoder]}
        for vector in vectors.values():
            # All of them before any is changed: one bad value switches the feature off in every vector.
            self.broken |= ~np.isfinite(vector)
        for name, vector in vectors.items():
            # Zeros would not do: a feature without a bias or a threshold fires wherever its row points.
            vector[self.broken] = -np.inf if name in _SWITCHES else 0
        if self.broken.any():
            _log.warning(
                "%s: %d features have an encoder row, bias or threshold that is not finite; they never fire",
                self.source.id,
                self.broken.sum(),
            )
        if not self.configuration.transcoder:  # a transcoder's b_dec belongs to what it writes, not to what it reads
            vectors["b_dec"] = self.tensors.whole("b_dec") / np.float32(self.configuration.norm_factor or 1.0)
            if not np.isfinite(vectors["b_dec"]).all():
                raise IngestError(f"b_dec of {self.source.address} is not finite: no feature of it can be evaluated")
        return vectors

    def _vector(self, name: str) -> np.ndarray:
        if name == "threshold":
            return self._threshold()
        vector = self.tensors.whole(name)
        return vector * self.folded if name == "b_enc" else vector

    def _threshold(self) -> np.ndarray:
        shapes = self.tensors.shapes
        if "threshold" in shapes:
            return self.tensors.whole("threshold")
        if "log_threshold" in shapes:  # JumpReLU as SAELens trained it before version 6
            exponential: np.ndarray = np.exp(self.tensors.whole("log_threshold"))
            return exponential
        # BatchTopK while training: one threshold, in units of the rescaled activation
        factor = self.configuration.norm_factor if self.configuration.rescale else None
        threshold = self.tensors.whole("topk_threshold").item() / (factor or 1.0)
        return np.full(self.configuration.d_sae, threshold, np.float32)


def _spans(n: int, width: int) -> Iterator[tuple[int, int]]:
    step = max(1, _BLOCK // width)
    return ((start, min(start + step, n)) for start in range(0, n, step))


def _norms(rows: np.ndarray) -> np.ndarray:
    """float32 [n]: norms, zero where a row is not finite; squares in float64, where they cannot overflow."""
    norms = np.sqrt(np.einsum("ij,ij->i", rows, rows, dtype=np.float64))
    with np.errstate(over="ignore"):
        norms32: np.ndarray = norms.astype(np.float32)
    norms32[~np.isfinite(norms32)] = 0
    return norms32


def _unit(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Unit rows, zero where they were zero or not finite, and their norms."""
    norms = _norms(rows)
    alive = norms > 0
    unit = np.zeros_like(rows)
    # Only where there is a norm: dead rows stay zero, and nothing warns of a division by it.
    np.divide(rows, norms[:, None], out=unit, where=alive[:, None])
    return unit, norms
