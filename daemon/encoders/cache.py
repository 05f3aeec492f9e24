"""The cache of converted networks: one folder an encoder, `model.tflite` and `encoder.json`.

Whatever is in there can be made again, so doubt means "not prepared": a missing file, another
hash, another recipe. Files are written beside their name, synced and renamed; the description
goes last, so a network without its description does not count.
"""

import hashlib
import json
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from daemon.encoders.base import EncoderInfo, space_of
from storage.errors import EncoderNotPreparedError

RECIPE = 1
"""Raised whenever the conversion changes what a network computes; older entries then lapse."""

_MODEL, _DESCRIPTION = "model.tflite", "encoder.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderRecord:
    """What `encoder.json` holds; `input_size` = (height, width); pixels become (x - mean) / std."""

    id: str
    description: str
    source: str
    dim: int
    input_size: tuple[int, int]
    tile_shape: tuple[int, int, int] | None
    mean: float
    std: float
    weights_sha256: str
    model_sha256: str
    tensorflow_version: str
    recipe: int = RECIPE

    @property
    def space(self) -> str:
        """The embedding space of this encoder's vectors."""
        return space_of(self.id, self.weights_sha256)

    @property
    def info(self) -> EncoderInfo:
        """The part that can be listed."""
        return EncoderInfo(
            id=self.id,
            description=self.description,
            dim=self.dim,
            input_size=self.input_size,
            source=self.source,
        )

    def as_json(self) -> dict[str, object]:
        """The object of `encoder.json`."""
        return {
            "id": self.id,
            "space": self.space,
            "description": self.description,
            "source": self.source,
            "dim": self.dim,
            "input_size": self.input_size,
            "tile_shape": self.tile_shape,
            "preprocessing": {"mean": self.mean, "std": self.std},
            "weights_sha256": self.weights_sha256,
            "model_sha256": self.model_sha256,
            "tensorflow_version": self.tensorflow_version,
            "recipe": self.recipe,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "EncoderRecord":
        """Read the object back.

        Raises:
            KeyError, TypeError, ValueError: It is not such an object.
        """
        height, width = data["input_size"]
        shape = data["tile_shape"]
        if shape is not None:
            rows, columns, channels = shape
            shape = (int(rows), int(columns), int(channels))
        return cls(
            id=str(data["id"]),
            description=str(data["description"]),
            source=str(data["source"]),
            dim=int(data["dim"]),
            input_size=(int(height), int(width)),
            tile_shape=shape,
            mean=float(data["preprocessing"]["mean"]),
            std=float(data["preprocessing"]["std"]),
            weights_sha256=str(data["weights_sha256"]),
            model_sha256=str(data["model_sha256"]),
            tensorflow_version=str(data["tensorflow_version"]),
            recipe=int(data["recipe"]),
        )


def default_cache_dir() -> Path:
    """Where converted networks are kept.

    `STILLWATCH_CACHE`; else `share/stillwatch/encoders` of this installation if it can be written
    or already holds networks; else the user's cache folder. Creates nothing.
    """
    chosen = os.environ.get("STILLWATCH_CACHE")
    if chosen:
        return Path(chosen)
    shared = Path(sys.prefix) / "share" / "stillwatch" / "encoders"
    if any(shared.glob(f"*/{_DESCRIPTION}")) or _writable(shared):
        return shared
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "stillwatch" / "encoders"


def _writable(folder: Path) -> bool:
    """Whether the folder could be written, or made."""
    while not folder.exists():
        folder = folder.parent
    return os.access(folder, os.W_OK)


def folder_of(cache_dir: Path, encoder_id: str) -> Path:
    """The encoder's folder; ids that are no plain names get a hash, so none collide."""
    if re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}", encoder_id):
        return cache_dir / encoder_id
    digest = hashlib.sha256(encoder_id.encode("utf-8", "surrogateescape")).hexdigest()[:8]
    return cache_dir / f"{re.sub(r'[^A-Za-z0-9]+', '_', encoder_id)[-48:]}-{digest}"


def read_record(folder: Path) -> EncoderRecord | None:
    """The description in an encoder's folder; None where it is absent, damaged or outdated."""
    try:
        record = EncoderRecord.from_json(json.loads((folder / _DESCRIPTION).read_bytes()))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return record if record.recipe == RECIPE else None


def checked_model(
    cache_dir: Path, encoder_id: str, weights_sha256: str | None
) -> tuple[EncoderRecord, Path]:
    """The converted network, after its hash was compared; reads the whole file.

    Args:
        cache_dir: The cache.
        encoder_id: Which encoder.
        weights_sha256: The hash its weights have now, None where that is not known.

    Raises:
        EncoderNotPreparedError: Absent, damaged, or made of other weights.
    """
    folder = folder_of(cache_dir, encoder_id)
    hint = f"Prepare it: stillwatch encoders prepare {encoder_id}"
    record = read_record(folder)
    if record is None or record.id != encoder_id:
        raise EncoderNotPreparedError(
            f"The encoder {encoder_id} is not prepared yet.", hint=hint, path=str(folder)
        )
    if weights_sha256 is not None and record.weights_sha256 != weights_sha256:
        raise EncoderNotPreparedError(
            f"The encoder {encoder_id} was prepared from other weights.",
            hint=hint,
            path=str(folder),
        )
    model = folder / _MODEL
    try:
        digest = file_sha256(model)
    except OSError:
        digest = ""
    if digest != record.model_sha256:
        raise EncoderNotPreparedError(
            f"The prepared encoder {encoder_id} is damaged (its SHA-256 differs).",
            hint=hint,
            path=str(model),
        )
    return record, model


def file_sha256(path: Path) -> str:
    """Hex SHA-256 of a file, read in pieces.

    Raises:
        OSError: It cannot be read.
    """
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def all_records(cache_dir: Path) -> list[EncoderRecord]:
    """Every readable description in the cache, by folder name."""
    found = (read_record(path.parent) for path in sorted(cache_dir.glob(f"*/{_DESCRIPTION}")))
    return [record for record in found if record is not None]


def write_entry(cache_dir: Path, record: EncoderRecord, flatbuffer: bytes) -> None:
    """Put a converted network into the cache: the network first, its description last.

    Raises:
        OSError: The cache cannot be written.
    """
    folder = folder_of(cache_dir, record.id)
    folder.mkdir(parents=True, exist_ok=True)
    _replace(folder / _MODEL, flatbuffer)
    _replace(folder / _DESCRIPTION, json.dumps(record.as_json(), indent=2).encode() + b"\n")


def _replace(target: Path, data: bytes) -> None:
    """Write beside the name, sync, rename, sync the folder."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    with temporary.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(target)
    descriptor = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
