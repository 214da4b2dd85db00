"""One sparse-autoencoder dictionary as the atlas keeps it: a record and memory-mapped rows.

On disk, in `dictionaries/{model}/{number}-{set}/`:

- `decoder.npy`  [d_sae, d_model]  decoder rows in the source's dtype (zero where the feature is dead), which
  `decoder_divisors` make unit rows; rows of head space are unit rows in residual space already, float32
- `encoder.npy`  [d_sae, d_in]     encoder rows (transposed W_enc of SAELens), likewise, times `encoder_factors`
- `vectors.npz` float32 `decoder_divisors` [m, d_sae] and `encoder_factors` [d_sae], where they are not all 1; `norms`
  [d_sae] (norm of each decoder row before it was made unit, in residual space), what activation needs, where the
  architecture has it: `b_enc`, `threshold`, `b_gate`, `b_mag`, `r_mag` [d_sae], `b_dec` [d_in]; constant normalisation
  and TopK's decoder norms are folded into the rows; and uint32 `decoder_digests`, `encoder_digests` [d_sae], of each
  row as it is used (`row_digests`)
- `dictionary.json`  the record, written last: a folder without it is unfinished
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from atlas.errors import CorruptAtlas
from atlas.folder.manifest import write_text
from atlas.folder.paths import DECODER, ENCODER, RECORD, VECTORS
from atlas.folder.stored_rows import StoredRows, is_known
from atlas.ids import is_file_name, is_id, is_sha256

if TYPE_CHECKING:
    import numpy as np

_BLOCK = 4096  # rows whose digests are looked at together


@dataclass(frozen=True)
class Dictionary:
    """What is known of a dictionary besides its rows."""

    id: str  # `{model}/{number}-{set}`
    model: str  # first part of the id: the model's short name, lower case unless Neuronpedia's
    model_name: str  # the model as it can be loaded: hub name or folder
    layer: int  # block it belongs to; res: the stream after that block; −1: the stream before block 0
    site: str  # res, mlp or att
    depth: int  # order along the forward pass (atlas.ids.depth)
    set: str  # last part of the id
    hook_name: str  # SAELens name of the place its decoder rows are written to, e.g. blocks.9.hook_resid_post
    hook_name_in: str  # SAELens name of the place its encoder reads; another one for transcoders
    hf_hook_name: str | None  # the metadata's own Hugging Face module for hook_name, where it has one
    hf_hook_name_in: str | None  # the same for hook_name_in
    architecture: str  # its encoder: standard, gated, jumprelu or topk
    d_sae: int  # number of features
    d_model: int  # width of the residual stream
    d_in: int  # width of what the encoder reads
    k: int | None  # active features a token (topk only)
    apply_b_dec_to_input: bool  # whether b_dec is subtracted from the encoder's input
    normalize_activations: (
        str  # none, layer_norm, expected_average_only_in or constant_norm_rescale, as SAELens names them
    )
    centred_input: bool  # trained on centred weights: the mean over d_model is removed before encoding
    mapped: str | None  # how head-space rows came to residual space: o_proj, o_proj+norm; None: they were there
    dead_rows: int  # rows that are zero or not finite
    release: str | None  # SAELens release
    sae_id: str | None  # id within the release
    neuronpedia_id: str | None  # `{model}/{layer}-{set}`
    source: str  # where it was read from
    sha256: str  # of the source's weights
    rows_sha256: str  # of the unit decoder rows (atlas.folder.stored_rows): what matching depends on
    prepend_bos: bool = True  # trained on contexts behind a start token

    def __post_init__(self) -> None:
        """Raises CorruptAtlas where a name that becomes a path is none that an ingest gives."""
        digests = (self.sha256, self.rows_sha256)
        if not (is_id(self.id) and all(map(is_sha256, digests)) and is_file_name(self.architecture)):
            raise CorruptAtlas(f"the record of {self.id!r} has an id or a digest that no ingest writes")

    @classmethod
    def load(cls, folder: Path) -> Dictionary:
        """Read `dictionary.json`; raises CorruptAtlas where it is missing or not of this form."""
        path = folder / RECORD
        try:
            values = json.loads(path.read_text())
            # An older record lacks fields that have a default, a newer one may have fields that are unknown here.
            known = [field.name for field in fields(cls) if field.name in values or field.default is MISSING]
            return cls(**{name: values[name] for name in known})
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CorruptAtlas(
                f"{path} is missing or damaged ({error}); ingest its source again into a new atlas"
            ) from None

    def save(self, folder: Path) -> None:
        """Write `dictionary.json`, atomically (last: it marks the folder as finished)."""
        write_text(folder / RECORD, json.dumps(asdict(self), indent=1) + "\n")


def row_digests(rows: np.ndarray) -> np.ndarray:
    """uint32 [n]: a digest of each row, float32 [n, d], from its bits; one bit or number more or less changes it.

    Sums with odd weights, so that a thousand rows take no longer than reading them.
    """
    import numpy as np

    # Little-endian on every machine: the digests are kept in files.
    bits = np.ascontiguousarray(rows, dtype="<f4").view("<u4")
    # Odd, so that none takes a bit away modulo 2³²; of a fixed seed, since digests on disk are compared with them.
    weights = np.random.default_rng(0).integers(0, 1 << 31, rows.shape[1], dtype=np.uint32) * np.uint32(2) + np.uint32(
        1
    )
    # einsum needs no array of the products: ten times as fast as multiplying and adding up.
    digests: np.ndarray = np.einsum("ij,j->i", bits, weights)
    return digests


@dataclass(frozen=True)
class Rows:
    """A dictionary's arrays, memory-mapped read-only; rows that are indexed become float32 arrays."""

    decoder: np.ndarray | StoredRows  # float32 [d_sae, d_model], unit rows
    encoder: np.ndarray | StoredRows  # float32 [d_sae, d_in]
    vectors: Mapping[str, np.ndarray]  # see the module's text

    @property
    def alive(self) -> np.ndarray:
        """bool [d_sae]: rows that can be matched."""
        alive: np.ndarray = self.vectors["norms"] > 0
        return alive

    def check(self, record: Dictionary, rows: Sequence[int] | slice = slice(None), *, encoder: bool = False) -> None:
        """Raise CorruptAtlas where decoder rows (or encoder rows) are not what was written; all of them, or some."""
        name = "encoder_digests" if encoder else "decoder_digests"
        if name not in self.vectors:  # written by a version that recorded none
            return
        expected, array = self.vectors[name], self.encoder if encoder else self.decoder
        wanted = range(record.d_sae)[rows] if isinstance(rows, slice) else rows
        for start in range(0, len(wanted), _BLOCK):
            block = wanted[start : start + _BLOCK]
            # A slice is a view of the mapped file, a list of rows would copy them.
            index = slice(block[0], block[-1] + 1) if isinstance(block, range) else list(block)
            if (row_digests(array[index]) != expected[index]).any():
                raise CorruptAtlas(
                    f"rows of {record.id} have changed since they were written; ingest its source again, which writes "
                    "them anew"
                )

    @classmethod
    def there(cls, folder: Path, record: Dictionary) -> bool:
        """Whether they can be opened and are what was written."""
        try:
            opened = cls.open(folder, record)
            opened.check(record)
            opened.check(record, encoder=True)
        except CorruptAtlas:
            return False
        return True

    @classmethod
    def open(cls, folder: Path, record: Dictionary) -> Rows:
        """Map the rows; raises CorruptAtlas where a file is missing, damaged or of another shape."""
        # NumPy parses a file's header as Python, so a damaged one fails in many ways.
        from tokenize import TokenError
        from zipfile import BadZipFile

        import numpy as np

        try:
            decoder = np.load(folder / DECODER, mmap_mode="r", allow_pickle=False)
            encoder = np.load(folder / ENCODER, mmap_mode="r", allow_pickle=False)
            with np.load(folder / VECTORS, allow_pickle=False) as archive:
                vectors = {name: archive[name] for name in archive.files}
        except (
            OSError,
            ValueError,
            EOFError,
            RuntimeError,
            OverflowError,
            SyntaxError,
            BadZipFile,
            TokenError,
        ) as error:
            raise CorruptAtlas(
                f"the rows of {record.id} are missing or damaged ({error}); ingest its source again"
            ) from None
        divisors, factors = vectors.get("decoder_divisors"), vectors.get("encoder_factors")
        expected = ((record.d_sae, record.d_model), (record.d_sae, record.d_in))
        # Where norms are missing the decoder stands in for them, whose two dimensions never fit.
        a_row = [vectors.get("norms", decoder).shape]
        a_row += [each.shape[-1:] for each in (divisors, factors) if each is not None]
        if not (is_known(decoder.dtype) and is_known(encoder.dtype)):
            raise CorruptAtlas(f"the rows of {record.id} are no numbers that an ingest writes; ingest it again")
        if (decoder.shape, encoder.shape) != expected or set(a_row) != {(record.d_sae,)}:
            raise CorruptAtlas(f"the rows of {record.id} have another shape than its record says; ingest it again")
        # An atlas of format 4 has neither: its rows are those that are used.
        return cls(StoredRows(decoder, divisors), StoredRows(encoder, None, factors), vectors)
