"""Real pictures through the product's own decoder and encoder, kept between runs.

The decoding process and the network are those of the daemon: scaled decoding, the whole picture
squeezed to the network's input, batches of eight. What comes out is kept in the work folder and
used again while the encoder's space and the path, size and time of every picture are the same.
"""

import csv
import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from daemon.encoders import registry
from daemon.encoders.base import Encoder
from daemon.ingest.decode_process import DecodeChild
from daemon.messages import ByteArray, FloatArray
from daemon.settings import IngestSettings
from daemon.signature import quantise_tiles

FLOAT32: Final = "efficientnet_lite0"
INT8: Final = "efficientnet_lite0_int8"
UNCLEAR: Final = "unclear"
"""Label of the rows that no score may count (README of the data)."""
SUFFIXES: Final = frozenset({".jpg", ".jpeg", ".png"})
BATCH: Final = 8
THREADS: Final = 2


@dataclass(frozen=True, slots=True)
class Embedded:
    """A folder of pictures, encoded.

    `paths`: relative to the folder, sorted; `vectors` (n, dim) float32 unit rows; `tiles`
    (n, rows, columns, channels) int8 directions; `labels` (n,) of `labels.csv`, empty strings
    where there is none.
    """

    name: str
    paths: tuple[str, ...]
    vectors: FloatArray
    tiles: NDArray[np.int8]
    labels: NDArray[np.str_]

    def clear(self) -> "Embedded":
        """Without the rows that are labelled unclear."""
        rows = np.flatnonzero(self.labels != UNCLEAR)
        paths = tuple(self.paths[row] for row in rows)
        return Embedded(self.name, paths, self.vectors[rows], self.tiles[rows], self.labels[rows])


def embedded(dev: Path, name: str, work: Path, encoder_id: str = FLOAT32) -> Embedded:
    """The pictures of the folder `name` below `dev`, from the cache in `work` where it is valid.

    Raises:
        FileNotFoundError: No such folder.
        ValueError: A picture that the product refuses.
    """
    folder = dev / name
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not files:
        raise FileNotFoundError(f"No pictures in {folder}.")
    paths = tuple(str(path.relative_to(folder)) for path in files)
    registry.prepare(encoder_id, registry.default_cache_dir(), lambda _stage, _done, _total: None)
    encoder = registry.load(encoder_id, registry.default_cache_dir(), THREADS)
    kept = work / f"{name}-{_fingerprint(files, encoder.space)}.npz"
    if not kept.exists():
        vectors, tiles = _encode(files, encoder)
        work.mkdir(parents=True, exist_ok=True)
        with kept.open("wb") as stream:
            np.savez(stream, vectors=vectors, tiles=tiles)
    encoder.close()
    with np.load(kept) as arrays:
        return Embedded(name, paths, arrays["vectors"], arrays["tiles"], _labels(folder, paths))


def _fingerprint(files: Sequence[Path], space: str) -> str:
    """Changes with the encoder and with the name, size or time of any picture."""
    digest = hashlib.sha256(space.encode())
    for path in files:
        facts = path.stat()
        digest.update(f"{path}\0{facts.st_size}\0{facts.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]


def _encode(files: Sequence[Path], encoder: Encoder) -> tuple[FloatArray, NDArray[np.int8]]:
    vectors: list[FloatArray] = []
    tiles: list[NDArray[np.int8]] = []
    pictures = _decoded(files, encoder.input_size)
    while batch := list(islice(pictures, BATCH)):
        encoding = encoder.encode(np.stack(batch))
        if encoding.tiles is None:
            raise ValueError(f"The encoder {encoder.id} gives no tile map.")
        vectors.append(encoding.vectors)
        tiles += [quantise_tiles(one) for one in encoding.tiles]
    return np.concatenate(vectors), np.stack(tiles)


def _decoded(files: Sequence[Path], size: tuple[int, int]) -> Iterator[ByteArray]:
    """The pixels that the daemon's decoding process hands over, (height, width, 3) uint8."""
    child = DecodeChild(IngestSettings())
    try:
        for path in files:
            fd = os.open(path, os.O_RDONLY)
            try:
                answer, payload = child.ask(fd, size)
            finally:
                os.close(fd)
            if "pixels" not in answer:
                raise ValueError(f"{path}: {answer}")
            pixels = np.frombuffer(payload[: int(str(answer["pixels"]))], dtype=np.uint8)
            yield pixels.reshape(*size, 3)
    finally:
        child.close()


def _labels(folder: Path, paths: Sequence[str]) -> NDArray[np.str_]:
    table = folder / "labels.csv"
    if not table.exists():
        return np.full(len(paths), "")
    with table.open(newline="", encoding="utf-8") as stream:
        known = {row["path"]: row["label"] for row in csv.DictReader(stream)}
    return np.array([known.get(path, "") for path in paths])
