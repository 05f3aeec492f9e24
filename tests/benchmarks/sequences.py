"""A camera's pictures as the dedup judge takes them, with what is known of each of them.

Tile maps come from the product's own encoder and are kept in a work folder under a name made from
the pictures' own pixels, so that the same pictures are encoded once.
"""

import csv
import hashlib
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from daemon.encoders import registry
from daemon.messages import ByteArray, JudgedFrame
from daemon.signature import make_grey, quantise_tiles
from tests.benchmarks.embedded import BATCH, FLOAT32, SUFFIXES
from tests.benchmarks.pasted import Box

DATED: Final = re.compile(r"(\d{14})")
START: Final = datetime(2026, 6, 1, 6, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Picture:
    """One decoded picture, BGR, and what is known of it.

    `label` of `labels.csv`, empty where there is none; `box` of an object that was put in; `quiet`
    False where something happens that no label tells; `bare`: the same without the object, where
    it is known.
    """

    name: str
    pixels: ByteArray
    label: str = ""
    box: Box | None = None
    quiet: bool = True
    bare: ByteArray | None = None


@dataclass(frozen=True, slots=True)
class Footage:
    """A camera's frames in capture order; the id of a frame is its place in all the lists.

    `contrasts`: mean difference in grey levels that an object makes within its box; 0 without one.
    """

    name: str
    frames: list[JudgedFrame]
    names: list[str]
    labels: list[str]
    boxes: list[Box | None]
    quiet: list[bool]
    contrasts: list[float]

    def at_interval(self, seconds: float) -> "Footage":
        """The same frames, one every `seconds` from 06:00 of one day."""
        timed = [
            replace(
                frame, seconds=START.timestamp() + place * seconds, day=START.date().isoformat()
            )
            for place, frame in enumerate(self.frames)
        ]
        return replace(self, frames=timed)


def read_folder(folder: Path) -> Iterator[Picture]:
    """Every picture of a folder in natural order, exact copies and what cannot be read left out.

    `labels.csv` (path, label) and `truth.csv` (path, inserted, box) are read where they lie beside.
    """
    labels = _column(folder / "labels.csv", "label")
    boxes = _column(folder / "truth.csv", "box")
    seen: set[bytes] = set()
    files = [path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES]
    for path in sorted(files, key=_natural):
        digest = hashlib.sha256(path.read_bytes()).digest()
        pixels = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if digest in seen or pixels is None:
            continue
        seen.add(digest)
        name = path.relative_to(folder).as_posix()
        box = boxes.get(name)
        yield Picture(
            name,
            np.asarray(pixels, dtype=np.uint8),
            labels.get(name, ""),
            _box(box) if box else None,
        )


def footage(name: str, pictures: Sequence[Picture], work: Path | None) -> Footage:
    """Signatures of the pictures, as the daemon would store them.

    Args:
        name: Of the camera.
        pictures: In capture order.
        work: Keeps the tile maps between runs; None leaves the encoder out.
    """
    maps: Sequence[NDArray[np.int8] | None] = [None] * len(pictures)
    if work is not None:
        maps = list(_tile_maps(name, [picture.pixels for picture in pictures], work))
    frames = []
    for place, (picture, tiles) in enumerate(zip(pictures, maps, strict=True)):
        dated = DATED.search(Path(picture.name).stem)
        at = datetime.strptime(dated[1], "%Y%m%d%H%M%S").replace(tzinfo=UTC) if dated else None
        height, width = picture.pixels.shape[:2]
        frames.append(
            JudgedFrame(
                frame_id=place,
                seconds=at.timestamp() if at else None,
                day=at.date().isoformat() if at else None,
                width=width,
                height=height,
                grey=make_grey(np.ascontiguousarray(picture.pixels[..., ::-1])),
                tiles=tiles,
            )
        )
    return Footage(
        name=name,
        frames=frames,
        names=[picture.name for picture in pictures],
        labels=[picture.label for picture in pictures],
        boxes=[picture.box for picture in pictures],
        quiet=[picture.quiet for picture in pictures],
        contrasts=_contrasts(pictures),
    )


def _contrasts(pictures: Sequence[Picture]) -> list[float]:
    """By how much each object stands out from the same picture, or the one before, without it."""
    found = []
    for place, picture in enumerate(pictures):
        if picture.box is None:
            found.append(0.0)
            continue
        bare = pictures[place - 1].pixels if picture.bare is None else picture.bare
        height, width = bare.shape[:2]
        x, y, across, down = picture.box
        rows = slice(int(y * height), math.ceil((y + down) * height))
        columns = slice(int(x * width), math.ceil((x + across) * width))
        with_it, without = (one[rows, columns].mean(axis=2) for one in (picture.pixels, bare))
        found.append(float(np.abs(with_it - without).mean()))
    return found


def _tile_maps(name: str, pictures: Sequence[ByteArray], work: Path) -> NDArray[np.int8]:
    digest = hashlib.sha256()
    for picture in pictures:
        digest.update(picture.tobytes())
    kept = work / f"{name}-{digest.hexdigest()[:16]}.npy"
    if not kept.exists():
        work.mkdir(parents=True, exist_ok=True)
        np.save(kept, _encode(pictures))
    return np.asarray(np.load(kept), dtype=np.int8)


def _encode(pictures: Sequence[ByteArray]) -> NDArray[np.int8]:
    cache = registry.default_cache_dir()
    registry.prepare(FLOAT32, cache, lambda _stage, _done, _total: None)
    encoder = registry.load(FLOAT32, cache, 1)
    height, width = encoder.input_size
    maps: list[NDArray[np.int8]] = []
    try:
        for start in range(0, len(pictures), BATCH):
            batch = [
                cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)[..., ::-1]
                for picture in pictures[start : start + BATCH]
            ]
            tiles = encoder.encode(np.stack(batch).astype(np.uint8)).tiles
            if tiles is None:
                raise ValueError(f"The encoder {encoder.id} gives no tile map.")
            maps += [quantise_tiles(one) for one in tiles]
    finally:
        encoder.close()
    return np.stack(maps)


def _natural(path: Path) -> list[tuple[int, str]]:
    parts = re.split(r"(\d+)", str(path))
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts]


def _column(table: Path, wanted: str) -> dict[str, str]:
    if not table.exists():
        return {}
    with table.open(newline="", encoding="utf-8") as stream:
        return {row["path"]: row[wanted] for row in csv.DictReader(stream)}


def _box(text: str) -> Box:
    x, y, width, height = (float(part) for part in text.split())
    return x, y, width, height
