"""Turn a torch file into safetensors, in a process that may die: `python pickle_worker.py FILE OUT`.

A pickle is a program. torch's restricted loader (`weights_only=True`, sound since torch 2.6) runs none of it but what
makes tensors and plain containers; what it could still do, claim memory or time, ends with this process. Imports
nothing of the project.

1. Bound memory, processor time and what is written by the file's size; refuse an archive that unpacks to far more.
2. Read with the restricted loader; take the tensors out of nested dicts and lists.
3. Refuse tensors that claim more than the file holds, and those that are not plain arrays.
4. Write safetensors.
"""

from __future__ import annotations

import os
import re
import resource
import sys
import zipfile
from collections.abc import Iterator
from typing import Any

_LEVELS = 8  # of nested containers; a state dict has one, a checkpoint two or three
_ENTRIES = 10_000  # values in all
_ROOM = 1 << 30  # bytes of memory besides four times the file's
_SECONDS = 60  # of processor time, besides one for each 32 MiB


def convert(source: str, target: str) -> None:
    """Convert one file; exits with a line on stderr where it cannot be taken."""
    import torch
    from safetensors.torch import save_file

    # Before the file is opened: the restricted loader is sound from there on only.
    if tuple(int(part) for part in torch.__version__.split(".")[:2]) < (2, 6):
        sys.exit("torch 2.6 or newer is needed: older ones can be made to run code by a file")
    torch.set_num_threads(1)
    size = os.path.getsize(source)
    # After torch's import, whose own memory is counted as taken already.
    _bound(size)
    try:
        _check_archive(source, size)
        loaded = torch.load(source, map_location="cpu", weights_only=True)
        tensors = dict(_tensors(loaded))
        if not tensors:
            sys.exit("it holds no tensors")
        if sum(tensor.numel() * tensor.element_size() for tensor in tensors.values()) > 2 * size:
            sys.exit("its tensors claim more than the file holds")
        # A copy each: tensors that share memory, or are views of more, cannot be written.
        save_file({name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}, target)
    except MemoryError:
        sys.exit("it claims more memory than the file holds")
    except Exception as error:
        sys.exit(_line(error))


def _check_archive(source: str, size: int) -> None:
    """torch stores what it saves as it is; an archive that unpacks to more was made by something else."""
    if zipfile.is_zipfile(source):
        with zipfile.ZipFile(source) as archive:
            if sum(record.file_size for record in archive.infolist()) > 2 * size + (1 << 20):
                sys.exit("its archive unpacks to more than it is")


def _bound(size: int) -> None:
    try:
        with open("/proc/self/statm") as file:
            taken = int(file.read().split()[0]) * resource.getpagesize()
    except OSError:
        taken = None  # not Linux: time alone is bounded
    bounds = {resource.RLIMIT_CORE: 0, resource.RLIMIT_CPU: seconds(size), resource.RLIMIT_FSIZE: 2 * size + (1 << 20)}
    bounds |= {} if taken is None else {resource.RLIMIT_AS: taken + 4 * size + _ROOM}
    for kind, bound in bounds.items():
        hard = resource.getrlimit(kind)[1]
        bound = bound if hard == resource.RLIM_INFINITY else min(bound, hard)
        resource.setrlimit(kind, (bound, bound))


def seconds(size: int) -> int:
    """Processor time that a file of so many bytes may take."""
    return _SECONDS + (size >> 25)


def _tensors(loaded: Any) -> Iterator[tuple[str, Any]]:
    """Names and tensors; containers one after another, so that no nesting can exhaust the stack."""
    import torch

    pending: list[tuple[str, Any, int]] = [("", loaded, 0)]
    seen = 0
    while pending:
        name, value, level = pending.pop()
        # Together with what waits: containers within containers would multiply past a bound on each alone.
        seen += 1
        if level > _LEVELS or seen + len(pending) > _ENTRIES:
            raise ValueError("its containers are nested too deeply, or hold too much, for a dictionary's weights")
        if isinstance(value, torch.Tensor):
            if value.layout != torch.strided or value.is_quantized or value.is_nested or value.device.type != "cpu":
                raise ValueError(f"{name} is not a plain array")
            yield name, value
        elif isinstance(value, dict | list | tuple):
            if len(value) > _ENTRIES:
                raise ValueError(f"{name or 'it'} holds {len(value)} values, too many for a dictionary's weights")
            items = value.items() if isinstance(value, dict) else enumerate(value)
            pending += [(f"{name}.{key}" if name else str(key), inner, level + 1) for key, inner in items]


def _line(error: Exception) -> str:
    """What is wrong in one line; torch's advice on how to read the file nevertheless is left out."""
    text = " ".join(str(error).split())
    if found := re.search(r"GLOBAL ([\w.]+)", text):
        return f"it calls {found[1]}, which makes no tensor"
    text = text.rpartition("trusted source.")[2].rpartition("WeightsUnpickler error:")[2]
    text = text.partition("Check the documentation")[0].partition("Please")[0].strip()
    return text[:200] or type(error).__name__


if __name__ == "__main__":
    convert(*sys.argv[1:])
