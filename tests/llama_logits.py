"""llama.cpp itself, with a control vector or without: logits of the next token, from a process of its own.

    python tests/llama_logits.py MODEL.gguf VECTOR.gguf|- OUT.npy TOKEN [TOKEN …]

Calls the C functions that the package xllamacpp carries (llama.h). It is no part of the suite's own process: two copies
of OpenMP in one end it.
"""

from __future__ import annotations

import ctypes as c
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import gguf
import numpy as np


class _Params(c.Structure):
    """Parameters by value, left as they are: larger than the library's, which reads no more than its own."""

    _fields_ = (("bytes", c.c_char * 1024),)


class _Batch(c.Structure):
    _fields_ = (("n_tokens", c.c_int32), ("pointers", c.c_void_p * 6))


def library() -> Any:
    """The functions of llama.h that are used."""
    spec = find_spec("xllamacpp")
    assert spec is not None and spec.origin is not None
    (path,) = Path(spec.origin).parent.glob("xllamacpp*.so")
    llama = c.CDLL(str(path))
    for name in ("llama_model_default_params", "llama_context_default_params"):
        getattr(llama, name).restype = _Params
    llama.llama_model_load_from_file.argtypes = (c.c_char_p, _Params)
    llama.llama_init_from_model.argtypes = (c.c_void_p, _Params)
    llama.llama_batch_get_one.argtypes = (c.POINTER(c.c_int32), c.c_int32)
    llama.llama_batch_get_one.restype = _Batch
    llama.llama_decode.argtypes = (c.c_void_p, _Batch)
    llama.llama_set_adapter_cvec.argtypes = (c.c_void_p, c.c_void_p, c.c_size_t, *[c.c_int32] * 3)
    llama.llama_get_logits_ith.argtypes = (c.c_void_p, c.c_int32)
    llama.llama_model_get_vocab.argtypes = (c.c_void_p,)
    llama.llama_vocab_n_tokens.argtypes = (c.c_void_p,)
    for name in (
        "llama_model_load_from_file",
        "llama_init_from_model",
        "llama_get_logits_ith",
        "llama_model_get_vocab",
    ):
        getattr(llama, name).restype = c.c_void_p
    return llama


def unpack(packed: Path, out: Path) -> None:
    """The same model with its weights as float32, so that llama.cpp does not round what they are multiplied with."""
    reader = gguf.GGUFReader(packed)
    architecture = reader.get_field("general.architecture")
    assert architecture is not None
    writer = gguf.GGUFWriter(out, str(architecture.contents()))
    for name, field in reader.fields.items():
        if not name.startswith("GGUF.") and name not in ("general.architecture", "general.file_type"):
            inner = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(name, field.contents(), field.types[0], inner)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def directions(path: str) -> np.ndarray:
    """As llama.cpp's own loader lays them out: float32 [last block, d_model], row N − 1 for direction.N."""
    tensors = {int(str(t.name).removeprefix("direction.")): np.array(t.data) for t in gguf.GGUFReader(path).tensors}
    laid = np.zeros((max(tensors), len(next(iter(tensors.values())))), np.float32)
    for block, vector in tensors.items():
        laid[block - 1] = vector
    return laid


def logits(model: str, vector: str, tokens: list[int]) -> np.ndarray:
    """float32 [n_vocab], behind the tokens."""
    llama = library()
    llama.llama_backend_init()
    loaded = llama.llama_model_load_from_file(model.encode(), llama.llama_model_default_params())
    assert loaded, f"{model} was not loaded"
    context = llama.llama_init_from_model(loaded, llama.llama_context_default_params())
    if vector != "-":
        laid = directions(vector)
        done = llama.llama_set_adapter_cvec(context, laid.ctypes.data, laid.size, laid.shape[1], 1, len(laid))
        assert done == 0, f"the control vector was not taken ({done})"
    ids = (c.c_int32 * len(tokens))(*tokens)
    assert llama.llama_decode(context, llama.llama_batch_get_one(ids, len(tokens))) == 0
    count = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(loaded))
    found = c.cast(llama.llama_get_logits_ith(context, -1), c.POINTER(c.c_float))
    return np.ctypeslib.as_array(found, (count,)).copy()


if __name__ == "__main__":
    model, vector, out, *tokens = sys.argv[1:]
    np.save(out, logits(model, vector, list(map(int, tokens))))
