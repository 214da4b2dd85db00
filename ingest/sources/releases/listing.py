"""SAELens's own list of releases, read from its file, one release at a time.

Importing the package takes 5 to 13 s and parsing the whole list 1 s: too long for an answer to a misspelt word.
"""

from __future__ import annotations

import difflib
import importlib.util
import re
from functools import cache
from pathlib import Path
from typing import Any

from atlas.errors import IngestError

_NAME = re.compile(r"^([\w.\-]+):[^\S\n]*$", re.MULTILINE)  # a release's name stands at the start of a line


def release_names() -> list[str]:
    """The names of all releases."""
    return list(_blocks())


def read_release(address: str) -> dict[str, Any]:
    """What is listed of one release, of which an address may name a part (`release/sae_id`).

    Raises IngestError with those that are close where there is none.
    """
    import yaml

    name = address.partition("/")[0]
    block = _blocks().get(name)
    if block is None:
        raise IngestError(_unknown(address, name))
    # libyaml's parser where it is there: the one in Python is slower.
    listed = yaml.load(block, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    return dict(listed)


@cache
def _blocks() -> dict[str, str]:
    """The text below each release's name, in the order of the file."""
    package = importlib.util.find_spec("sae_lens")
    if package is None or not package.submodule_search_locations:
        raise IngestError("releases need the package sae-lens, which is not installed; or name a folder")
    text = (Path(package.submodule_search_locations[0]) / "pretrained_saes.yaml").read_text()
    _, *parts = _NAME.split(text)
    return dict(zip(parts[::2], parts[1::2], strict=True))


def _unknown(address: str, name: str) -> str:
    listed = release_names()
    close = difflib.get_close_matches(name, listed, n=5, cutoff=0.5)
    close += [other for other in listed if name.lower() in other.lower() and other not in close][: 5 - len(close)]
    hint = f"close to it: {', '.join(close)}" if close else f"it lists {len(listed)}, e.g. {listed[0]}"
    return f"{address!r} is neither a folder nor a release of SAELens; {hint}"
