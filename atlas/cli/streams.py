"""Standard output and error as they come: any encoding, closed, or on a disk that is full."""

from __future__ import annotations

import codecs
import os
import sys

# What a tree and a table are drawn with, for a terminal that has no other characters.
_PLAIN = str.maketrans("─│┌├└┼○●▪", "-|,|`+o*-")


def prepare_streams() -> None:
    """Let every character be written, whatever the encoding, and nothing fail where a stream was closed.

    A character that the encoding lacks is written as \\uXXXX: in json that is the same text, elsewhere it can be read.
    """
    codecs.register_error("escaped", _escaped)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        # Python has no stream where the descriptor was closed before it started.
        if stream is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="escaped")


def drop_output() -> None:
    """Send what is left of standard output nowhere: what cannot be written must not fail once more at the end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _escaped(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end].translate(_PLAIN)
    # In JSON a character beyond U+FFFF is written as two surrogates.
    units = text.encode("utf-16-be", "surrogatepass")
    pairs = [units[i : i + 2] for i in range(0, len(units), 2)]
    written = "".join(chr(pair[1]) if pair[0] == 0 and pair[1] < 128 else f"\\u{pair.hex()}" for pair in pairs)
    return written, error.end
