"""Reads arrays from a PyTorch weights file of the old format, without PyTorch.

The file is a row of pickles (magic number, version, system, the dictionary of tensors, the list
of storages) followed by the raw numbers. A pickle can call anything, so this reader admits the
five names that a dictionary of tensors needs and refuses the rest; before that the SHA-256 of the
whole file must be the expected one.
Source of the layout: torch/serialization.py, `_legacy_save` (PyTorch 1.x, BSD-3-Clause).
"""

import hashlib
import io
import pickle
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from storage.errors import EncoderError

_MAGIC = 0x1950A86A20F9469CFC6C
_VERSION = 1001
_STORAGE_TYPES = {
    "FloatStorage": np.dtype("<f4"),
    "HalfStorage": np.dtype("<f2"),
    "LongStorage": np.dtype("<i8"),
}


@dataclass(frozen=True, slots=True)
class _Storage:
    """A storage the dictionary refers to; its numbers follow at the end of the file."""

    key: str
    dtype: np.dtype[Any]
    length: int


@dataclass(frozen=True, slots=True)
class _Tensor:
    """A view into a storage, in elements."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def _rebuild_tensor(
    storage: _Storage,
    offset: int,
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    *_unused: object,
) -> _Tensor:
    """Stand-in for `torch._utils._rebuild_tensor_v2`: remembers, computes nothing."""
    return _Tensor(storage, offset, tuple(shape), tuple(strides))


class _ArraysOnly(pickle.Unpickler):
    """Admits ordered dictionaries, tensors and storages; calls nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        """The stand-in for an admitted name.

        Raises:
            EncoderError: The file asks for anything else.
        """
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild_tensor
        if module == "torch" and name in _STORAGE_TYPES:
            return _STORAGE_TYPES[name]
        raise EncoderError(
            f"The weights file asks for {module}.{name}; only arrays are admitted.",
            hint="The file is damaged or malicious: install the weights package again.",
        )

    def persistent_load(self, pid: Any) -> _Storage:
        """A reference to a storage.

        Raises:
            EncoderError: Not a plain storage.
        """
        match pid:
            case ("storage", np.dtype() as dtype, str(key), str(), int(length), None):
                return _Storage(key, dtype, length)
        raise EncoderError("The weights file refers to something that is not an array.")


def read_arrays(path: Path, expected_sha256: str) -> dict[str, NDArray[Any]]:
    """Read all arrays of a PyTorch weights file.

    Args:
        path: The `.pth` file, old (non-zip) format; read whole into memory.
        expected_sha256: Hex digest that the file must have.

    Returns:
        Name -> contiguous array in the shape that PyTorch gives it.

    Raises:
        EncoderError: Absent, another hash, another format, or anything but arrays in it.
    """
    try:
        data = path.read_bytes()
    except OSError as exc:
        raise EncoderError(
            f"The weights file cannot be read: {exc.strerror}.",
            hint="Install the weights package again.",
            path=str(path),
        ) from exc
    if hashlib.sha256(data).hexdigest() != expected_sha256:
        raise EncoderError(
            "The weights file is not the expected one (its SHA-256 differs).",
            hint="Install the weights package again.",
            path=str(path),
        )
    try:
        return _parse(io.BytesIO(data))
    except (pickle.UnpicklingError, EOFError, ValueError, TypeError, KeyError, IndexError) as exc:
        raise EncoderError(
            f"The weights file is damaged: {exc}.",
            hint="Install the weights package again.",
            path=str(path),
        ) from exc


def _parse(stream: io.BytesIO) -> dict[str, NDArray[Any]]:
    """Read the pickles and then the numbers. Raises what `read_arrays` translates."""
    if _ArraysOnly(stream).load() != _MAGIC or _ArraysOnly(stream).load() != _VERSION:
        raise ValueError("not a PyTorch file of the old format")
    system = _ArraysOnly(stream).load()
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise ValueError("written by a big-endian machine")
    tensors = _ArraysOnly(stream).load()
    keys = _ArraysOnly(stream).load()
    if not isinstance(tensors, Mapping) or not isinstance(keys, list):
        raise ValueError("not a dictionary of arrays")
    storages = _read_storages(stream, keys, tensors)
    return {
        str(name): _view(storages[tensor.storage.key], tensor)
        for name, tensor in tensors.items()
        if isinstance(tensor, _Tensor)
    }


def _read_storages(
    stream: io.BytesIO, keys: list[Any], tensors: Mapping[Any, Any]
) -> dict[str, NDArray[Any]]:
    """The numbers of each storage, in the file's order."""
    described = {t.storage.key: t.storage for t in tensors.values() if isinstance(t, _Tensor)}
    storages: dict[str, NDArray[Any]] = {}
    for key in keys:
        storage = described[key]
        length = int.from_bytes(stream.read(8), "little")
        raw = stream.read(length * storage.dtype.itemsize)
        if length != storage.length or len(raw) != length * storage.dtype.itemsize:
            raise ValueError("the file ends early")
        storages[key] = np.frombuffer(raw, storage.dtype)
    return storages


def _view(numbers: NDArray[Any], tensor: _Tensor) -> NDArray[Any]:
    """Cut one array out of its storage; bounds are checked, as strides can point anywhere."""
    if len(tensor.shape) != len(tensor.strides) or min((0, *tensor.shape, *tensor.strides)) < 0:
        raise ValueError("an array has an impossible shape")
    last = sum((n - 1) * s for n, s in zip(tensor.shape, tensor.strides, strict=True))
    if tensor.offset < 0 or tensor.offset + max(last, 0) >= max(numbers.size, 1):
        raise ValueError("an array reaches beyond its storage")
    item = numbers.dtype.itemsize
    view = np.lib.stride_tricks.as_strided(
        numbers[tensor.offset :], tensor.shape, [s * item for s in tensor.strides], writeable=False
    )
    return np.ascontiguousarray(view)
