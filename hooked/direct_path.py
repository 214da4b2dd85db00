"""What one unit of an earlier feature's activation does to a later feature's pre-activation, along the stream alone.

    push = reading row of the later · writing row of the earlier

The reading row is the encoder's, with what the architecture does to it before it activates (gated: e^{r_mag}; centred
weights: without its mean); the writing row is the decoder's as long as it is, not unit. Constant normalisation was
folded into both when they were written (`atlas.folder.dictionary`). Everything between the two that adds to the stream
leaves it alone: it is the path from the earlier place to the later one that passes no layer (Elhage et al. 2021).
NumPy only, so that an ingest need not import torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from atlas.folder.dictionary import Dictionary, Rows

if TYPE_CHECKING:
    import numpy as np

_LINEAR = ("standard", "gated", "jumprelu", "topk")  # encoders whose pre-activation is linear in what they read
NORMED = "o_proj+norm"  # how rows of head space were mapped where an output norm follows the projection


def why_no_push(later: Dictionary, earlier: Dictionary) -> str | None:
    """Why the two have no push that is the same at every token, in a few words; None where they have one."""
    if later.architecture not in _LINEAR:
        return f"the encoder of {later.id} ({later.architecture}) is not linear in what it reads"
    if later.hook_name_in != later.hook_name:
        return f"the encoder of {later.id} reads another place than the stream that it writes to"
    if earlier.architecture not in _LINEAR:
        return f"activations of {earlier.id} ({earlier.architecture}) are none that its rows are multiplied by"
    if earlier.mapped == NORMED:
        return f"an output norm divides what {earlier.id} writes by the token's size"
    for record in (later, earlier):
        # A transcoder gives the token's scale to nothing that it writes.
        reads = record is later or record.hook_name_in == record.hook_name
        if record.normalize_activations != "none" and reads:
            return f"{record.id} scales what it reads by token ({record.normalize_activations})"
    return None


def reading_rows(record: Dictionary, rows: Rows, index: np.ndarray) -> np.ndarray:
    """float32 [n, d_model]: by how much each feature's pre-activation rises with what its encoder reads."""
    import numpy as np

    reading: np.ndarray = np.asarray(rows.encoder[index], dtype=np.float32)
    if record.architecture == "gated":
        reading = reading * np.exp(rows.vectors["r_mag"][index])[:, None]
    return reading - reading.mean(axis=1, keepdims=True) if record.centred_input else reading


def push(
    later: tuple[Dictionary, Rows], earlier: tuple[Dictionary, Rows], b: np.ndarray, a: np.ndarray
) -> np.ndarray | None:
    """float64 [n]: push of the later rows `b` by the earlier rows `a`, int [n] each; None where there is none.

    Read in batches from where the rows lie; `b` in ascending order reads the encoder once, front to back.
    """
    import numpy as np

    if why_no_push(later[0], earlier[0]) is not None:
        return None
    found = np.empty(len(b))
    step = max(1, _BATCH // later[0].d_model)
    for start in range(0, len(b), step):
        part = slice(start, start + step)
        reading, decoder = reading_rows(*later, b[part]), earlier[1].decoder[a[part]]
        found[part] = np.einsum("ij,ij->i", reading, decoder)
    found *= earlier[1].vectors["norms"][a]
    return found


_BATCH = 1 << 18  # numbers of a batch of rows: 1 MB each side, which stays in a cache; 4 MB took twice as long
