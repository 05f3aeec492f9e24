"""Runs a converted network with LiteRT; the only part of the encoders on the hot path.

Pictures go through one by one. Measured on two cores with EfficientNet-Lite0: 2.7 ms a picture
alone, 3.2 ms in batches of eight, which also take 50 MB more; and a vector then cannot depend on
what else was in its batch. `invoke` releases the GIL, so other threads run meanwhile.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from daemon.encoders.cache import EncoderRecord
from daemon.messages import ByteArray, Encoding, FloatArray
from storage.errors import EncoderError

_INPUT_TYPES = (np.float32, np.uint8)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shapes:
    """What a converted network takes and gives: (height, width), vector length, tile map."""

    input_size: tuple[int, int]
    dim: int
    tile_shape: tuple[int, int, int] | None


def read_shapes(flatbuffer: bytes) -> Shapes:
    """Look into a LiteRT file.

    Args:
        flatbuffer: The file's bytes.

    Returns:
        The picture size, the length of the first flat output, and the shape of the first output
        that is a map, if any.

    Raises:
        EncoderError: Not LiteRT, or not a network from one picture to a vector.
    """
    interpreter = _interpreter({"model_content": flatbuffer}, threads=1)
    inputs = interpreter.get_input_details()
    shape = [int(n) for n in inputs[0]["shape"]]
    if len(inputs) != 1 or len(shape) != 4 or shape[3] != 3 or min(shape[1:3]) < 8:
        raise EncoderError(f"The network does not take RGB pictures but {shape}.")
    if inputs[0]["dtype"] not in _INPUT_TYPES:
        raise EncoderError("The network's input must be float32 or uint8.")
    outputs = interpreter.get_output_details()
    if any(output["dtype"] is not np.float32 for output in outputs):
        raise EncoderError("The network's outputs must be float32.")
    sizes = [tuple(int(n) for n in output["shape"][1:]) for output in outputs]
    vectors = [size for size in sizes if len(size) == 1]
    maps = [size for size in sizes if len(size) == 3]
    if not vectors:
        raise EncoderError(f"The network gives no vector but {sizes}.")
    tile_shape = (maps[0][0], maps[0][1], maps[0][2]) if maps else None
    return Shapes(input_size=(shape[1], shape[2]), dim=vectors[0][0], tile_shape=tile_shape)


class LiteRTEncoder:
    """An `Encoder` over one LiteRT interpreter; one thread at a time.

    Args of the constructor: the cache's `record`, the `model` (path: memory-mapped; or bytes),
    and the number of `threads`. Raises EncoderError when the file cannot be run.
    """

    def __init__(self, record: EncoderRecord, model: Path | bytes, threads: int) -> None:
        self._record = record
        source = (
            {"model_content": model} if isinstance(model, bytes) else {"model_path": str(model)}
        )
        self._interpreter: Any = _interpreter(source, threads)
        detail = self._interpreter.get_input_details()[0]
        self._input = int(detail["index"])
        self._input_type = detail["dtype"]
        if int(detail["shape"][0]) != 1:
            self._interpreter.resize_tensor_input(self._input, (1, *record.input_size, 3))
        with _native_notes_hidden():
            self._interpreter.allocate_tensors()
        outputs = self._interpreter.get_output_details()
        self._vector_output = _find_output(outputs, (record.dim,))
        self._tile_output = (
            None if record.tile_shape is None else _find_output(outputs, record.tile_shape)
        )

    @property
    def id(self) -> str:
        """The id in the settings."""
        return self._record.id

    @property
    def space(self) -> str:
        """The embedding space of the vectors."""
        return self._record.space

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return self._record.dim

    @property
    def input_size(self) -> tuple[int, int]:
        """(height, width) in pixels that pictures are squeezed to."""
        return self._record.input_size

    @property
    def tile_shape(self) -> tuple[int, int, int] | None:
        """(rows, columns, channels) of the tile map, None where there is none."""
        return self._record.tile_shape

    @property
    def weights_sha256(self) -> str:
        """Hex SHA-256 of the weights."""
        return self._record.weights_sha256

    def encode(self, batch: ByteArray) -> Encoding:
        """Encode whole pictures, see `Encoder.encode`.

        Args:
            batch: uint8 RGB, shape (n, height, width, 3).

        Raises:
            ValueError: Another shape or type.
        """
        if batch.dtype != np.uint8 or batch.shape[1:] != (*self.input_size, 3):
            raise ValueError(f"pictures must be uint8 (n, {self.input_size}, 3), not {batch.shape}")
        vectors = np.empty((len(batch), self.dim), np.float32)
        tiles = None if self.tile_shape is None else np.empty((len(batch), *self.tile_shape), "f4")
        for row, picture in enumerate(batch):
            self._interpreter.set_tensor(self._input, self._prepare(picture)[np.newaxis])
            self._interpreter.invoke()
            vectors[row] = self._interpreter.get_tensor(self._vector_output)[0]
            if tiles is not None:
                tiles[row] = self._interpreter.get_tensor(self._tile_output)[0]
        return Encoding(space=self.space, vectors=unit_rows(vectors), tiles=tiles)

    def close(self) -> None:
        """Free the interpreter's memory."""
        self._interpreter = None

    def _prepare(self, picture: ByteArray) -> Any:
        """Pixels as the network wants them, uint8 or float32."""
        if self._input_type is np.uint8:
            return picture
        x = picture.astype(np.float32)
        x -= np.float32(self._record.mean)
        x /= np.float32(self._record.std)
        return x


def unit_rows(vectors: FloatArray) -> FloatArray:
    """Scale rows to unit length.

    Args:
        vectors: float32 (n, dim); not changed.

    Returns:
        float32 (n, dim) of unit length. A zero or not finite row becomes the unit vector with
        equal components, so that no NaN reaches the database or an index.
    """
    norms = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    usable = np.isfinite(norms) & (norms > 0)
    fallback = 1.0 / np.sqrt(vectors.shape[1])
    safe = np.where(usable, vectors, fallback)
    return (safe / np.where(usable, norms, 1.0)).astype(np.float32)


@contextmanager
def _native_notes_hidden() -> Iterator[None]:
    """Keep the library's line about its CPU delegate off the owner's terminal.

    It is written by C++ to file descriptor 2 and cannot be switched off; errors come as exceptions.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    silent = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(silent, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(silent)


def _interpreter(source: dict[str, Any], threads: int) -> Any:
    """An interpreter without tensors yet; whatever it cannot parse is an EncoderError."""
    try:
        with _native_notes_hidden():
            return Interpreter(num_threads=threads, **source)
    except (ValueError, RuntimeError) as exc:
        raise EncoderError(f"The network is not a LiteRT file that can be run: {exc}.") from exc


def _find_output(details: Sequence[dict[str, Any]], shape: tuple[int, ...]) -> int:
    """Index of the output with that shape; the converter keeps neither names nor order."""
    for detail in details:
        if tuple(int(n) for n in detail["shape"][1:]) == shape:
            return int(detail["index"])
    raise EncoderError(f"The network has no output of shape {shape}.")
