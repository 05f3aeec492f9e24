"""How much the dedup judge finds on real footage, and whether it ever merges a change.

    python tests/benchmarks/dedup_quality.py FOLDER [FOLDER ...] [--pixels] [--cache DIR]

A FOLDER is a camera if it holds pictures or a CSV, else each of its subfolders is looked at; one
line is printed for every camera. Beside the share of frames called redundant:

- `labels.csv` (path, label): pairs merged across labels, and first frames of runs that were not
  kept. Rows labelled `unclear` are left out of the count.
- `truth.csv` (path, inserted) of a sequence with objects put in: object frames merged with a frame
  that lacks the object, or the other way round.

Ends with 1 if a change was merged on a labelled camera. `--pixels` leaves the encoder out;
`--cache` keeps the tile maps between runs; `--max-change` tries other thresholds.
"""

import argparse
import csv
import hashlib
import re
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from daemon.dedup.grouping import JudgeSettings, judge_camera
from daemon.messages import CameraVerdicts, JudgedFrame
from daemon.signature import make_grey, quantise_tiles

SUFFIXES = {".jpg", ".jpeg", ".png"}
DATED = re.compile(r"(\d{14})")


@dataclass(frozen=True)
class Score:
    """The count of one camera."""

    frames: int
    redundant: int
    quiet: int
    quiet_redundant: int
    crossed: list[str]
    first_lost: list[str]
    inserted: int
    merged: list[str]


def natural(path: Path) -> list[tuple[int, str]]:
    """Sort key by the numbers in a name."""
    return [
        (int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", str(path))
    ]


def cameras(folders: Sequence[Path]) -> Iterator[tuple[str, list[Path]]]:
    """Every folder that has a CSV beside pictures, or pictures itself, with them in order."""
    for folder in folders:
        direct = [p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES]
        if direct or any(folder.glob("*.csv")):
            files = [p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES]
            yield folder.name, sorted(files, key=natural)
        else:
            yield from cameras(sorted(p for p in folder.iterdir() if p.is_dir()))


def read_pictures(files: Sequence[Path]) -> Iterator[tuple[Path, NDArray[np.uint8]]]:
    """RGB pictures without exact copies and without what OpenCV cannot read."""
    seen = set()
    for path in files:
        digest = hashlib.sha256(path.read_bytes()).digest()
        picture = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if digest in seen or picture is None:
            continue
        seen.add(digest)
        yield path, np.ascontiguousarray(picture[..., ::-1], dtype=np.uint8)


def tile_maps(name: str, pictures: list[NDArray[np.uint8]], cache: Path | None) -> list[object]:
    """The int8 mid-layer map of every picture, from the encoder or from the cache."""
    stored = None if cache is None else cache / f"{name}-{len(pictures)}.npy"
    if stored is not None and stored.exists():
        return list(np.load(stored))
    from daemon.encoders import registry

    encoder = registry.load("efficientnet_lite0", registry.default_cache_dir(), 2)
    maps = []
    for start in range(0, len(pictures), 8):
        batch = [
            cv2.resize(picture, (224, 224), interpolation=cv2.INTER_AREA)
            for picture in pictures[start : start + 8]
        ]
        tiles = encoder.encode(np.stack(batch).astype(np.uint8)).tiles
        if tiles is None:
            raise SystemExit("the encoder gives no tile map")
        maps += [quantise_tiles(one) for one in tiles]
    if stored is not None:
        stored.parent.mkdir(parents=True, exist_ok=True)
        np.save(stored, np.stack(maps))
    return list(maps)


def make_frames(
    name: str, files: Sequence[Path], *, pixels: bool, cache: Path | None
) -> tuple[list[Path], list[JudgedFrame]]:
    """Decode a camera's pictures; the frame id is the place in the list."""
    loaded = list(read_pictures(files))
    maps = [None] * len(loaded) if pixels else tile_maps(name, [p for _, p in loaded], cache)
    frames = []
    for number, ((path, picture), tiles) in enumerate(zip(loaded, maps, strict=True)):
        dated = DATED.search(path.stem)
        at = datetime.strptime(dated[1], "%Y%m%d%H%M%S").replace(tzinfo=UTC) if dated else None
        frames.append(
            JudgedFrame(
                frame_id=number,
                seconds=at.timestamp() if at else None,
                day=at.date().isoformat() if at else None,
                width=picture.shape[1],
                height=picture.shape[0],
                grey=make_grey(picture),
                tiles=tiles,  # type: ignore[arg-type]
            )
        )
    return [path for path, _ in loaded], frames


def column(folder: Path, file: str, wanted: str, paths: Sequence[Path]) -> list[str]:
    """One column of a CSV beside the pictures, in the order of `paths`; empty where absent."""
    table = folder / file
    if not table.exists():
        return [""] * len(paths)
    with table.open(newline="", encoding="utf-8") as stream:
        found = {row["path"]: row[wanted] for row in csv.DictReader(stream)}
    return [found.get(str(path.relative_to(folder)), "") for path in paths]


def score(folder: Path, paths: Sequence[Path], result: CameraVerdicts) -> Score:
    """Count what was found and what was wrongly merged."""
    keeper = {one.frame_id: one.keeper_id for one in result.verdicts}
    labels = column(folder, "labels.csv", "label", paths)
    inserted = column(folder, "truth.csv", "inserted", paths)
    if folder.name == "factory_pcb":
        labels = [str(path) for path in paths]  # no two of these pictures may be merged
    crossed, lost, merged, previous = [], [], [], ""
    for number, path in enumerate(paths):
        kept_by, label = keeper[number], labels[number]
        if label not in ("", "unclear"):
            if label != previous and kept_by is not None:
                lost.append(path.name)
            previous = label
        if kept_by is None:
            continue
        if "unclear" not in (label, labels[kept_by]) and label != labels[kept_by]:
            crossed.append(f"{path.name} in {paths[kept_by].name}")
        if "1" in (inserted[number], inserted[kept_by]):
            merged.append(f"{path.name} in {paths[kept_by].name}")
    quiet = [n for n, label in enumerate(labels) if label == "empty"]
    return Score(
        frames=len(paths),
        redundant=sum(one is not None for one in keeper.values()),
        quiet=len(quiet),
        quiet_redundant=sum(keeper[n] is not None for n in quiet),
        crossed=crossed,
        first_lost=lost,
        inserted=inserted.count("1"),
        merged=merged,
    )


def line(name: str, found: Score, result: CameraVerdicts, milliseconds: float) -> str:
    """The figures of one camera in one line."""
    parts = [
        f"{name:22s} {found.frames:5d} frames",
        f"redundant {100 * found.redundant / max(1, found.frames):5.1f} %",
        f"{milliseconds:5.1f} ms a frame",
    ]
    if found.quiet:
        parts.append(f"quiet removed {100 * found.quiet_redundant / found.quiet:.1f} %")
    if found.inserted:
        parts.append(f"objects merged {len(found.merged)} of {found.inserted}")
    parts.append(f"changes merged {len(found.crossed)}, first of runs lost {len(found.first_lost)}")
    parts += ["moving"] if result.moving else []
    parts += [] if result.ready else ["still learning"]
    return ", ".join(parts)


def main() -> int:
    """Judge every camera, print its line."""
    parser = argparse.ArgumentParser(description="Quality of the dedup judge on real footage.")
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--pixels", action="store_true", help="without the encoder's tile maps")
    parser.add_argument("--cache", type=Path, help="folder that keeps the tile maps")
    parser.add_argument("--max-change", nargs="*", type=float, help="thresholds to try")
    parser.add_argument("--reasons", action="store_true", help="count the reasons, list mergers")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    default = JudgeSettings()
    limits = args.max_change or [default.max_change_pixels if args.pixels else default.max_change]
    wrong = 0
    for name, files in cameras(args.folders):
        folder = next(p for p in files[0].parents if p.name == name)
        paths, frames = make_frames(name, files, pixels=args.pixels, cache=args.cache)
        for limit in limits:
            settings = JudgeSettings(max_change=limit, max_change_pixels=limit)
            begin = time.perf_counter()
            result = judge_camera(frames, settings=settings)
            took = 1000 * (time.perf_counter() - begin) / max(1, len(frames))
            found = score(folder, paths, result)
            wrong += len(found.crossed) + len(found.first_lost)
            print(f"{limit:4.2f} " + line(name, found, result, took), flush=True)
            if args.reasons:
                words = Counter(re.split(r" f\d+|:", one.reason)[0] for one in result.verdicts)
                print("     ", dict(words), found.crossed[:4], found.merged[:4])
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
