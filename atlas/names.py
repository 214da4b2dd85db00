"""Names that become paths: whoever made an atlas or may write to a graph must not reach its readers' other files."""

from __future__ import annotations

import re

_ID = re.compile(r"(?!\.)[^/\\\0]+(/(?!\.)[^/\\\0]+)*")
_SHA256 = re.compile("[0-9a-f]{64}")


def is_id(name: object) -> bool:
    """Whether it can be the id of a dictionary: folders below an atlas's `dictionaries`."""
    return isinstance(name, str) and _ID.fullmatch(name) is not None


def is_file_name(name: object) -> bool:
    """Whether it can be one file of an atlas: matches of a pair, a state of the graph."""
    return is_id(name) and "/" not in str(name)


def is_sha256(name: object) -> bool:
    """Whether it can be a SHA-256, in hexadecimal digits."""
    return isinstance(name, str) and _SHA256.fullmatch(name) is not None
