"""The change test on labelled pairs, with noise learnt from the past only.

    python -m tests.benchmarks.change_pairs PAIRS_FOLDER [WORK_FOLDER]

PAIRS_FOLDER holds `pairs.csv` (camera, kind, split, a, b, label) and its pictures. The noise of a
camera is learnt from its `past` rows labelled quiet, and only `later` rows are scored, all cameras
at the default threshold of the settings. WORK_FOLDER keeps tile maps between runs. Also measured:
the processor time of a pair that is quiet, and of one where everything changes.
"""

import argparse
import csv
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from daemon.dedup.change import NoiseLimits, Prepared, judge_maps, prepare, residual_maps
from daemon.dedup.noise import NoiseModel
from daemon.settings import DedupSettings
from tests.benchmarks.rows import Row, all_hold, markdown, table
from tests.benchmarks.sequences import Picture, footage

FOUND: Final = (("quiet", "synthetic", 88, 95), ("rquiet", "real", 80, 92))
"""Kind, its name, least percent found, aim."""
MERGED: Final = (
    ("p025", "object of 0.25 %", 10.0, 5.0),
    ("p05", "object of 0.5 %", 4.0, 2.0),
    ("p1", "object of 1 %", 1.0, 0.0),
    ("p1h", "half-transparent object of 1 %", 8.0, 4.0),
    ("p2", "object of 2 %", 0.5, 0.0),
    ("p4", "object of 4 %", 0.5, 0.0),
    ("rchange", "real change", 0.0, 0.0),
)
"""Kind, its name, most percent merged, aim."""
CURVE: Final = (1.5, 2.0, 2.3, 2.6, 3.0, 3.5)
TIMED: Final = (("road", "rquiet"), ("plaza", "p4"))
"""Camera and kind of the pairs that are timed: quiet ones, and ones that fail."""
MOST_MS: Final = 7.0
ROUNDS: Final = 5

Scores = Mapping[tuple[str, str], NDArray[np.float64]]
"""Camera, kind -> score of each later pair; infinity where it cannot be compared."""


@dataclass(frozen=True, slots=True)
class Pair:
    """One row of `pairs.csv`: the frame `b` against the keeper `a`."""

    kind: str
    past: bool
    quiet: bool
    a: str
    b: str


@dataclass(frozen=True, slots=True)
class Camera:
    """The pairs of one camera, its prepared pictures, and the noise of its past."""

    name: str
    pairs: list[Pair]
    pictures: Mapping[str, Prepared]
    noise: NoiseLimits

    def later(self, kind: str) -> list[tuple[Prepared, Prepared]]:
        """Frame and keeper of every later pair of a kind."""
        return [
            (self.pictures[pair.b], self.pictures[pair.a])
            for pair in self.pairs
            if pair.kind == kind and not pair.past
        ]

    def score(self, frame: Prepared, keeper: Prepared) -> float:
        """The change score of one pair."""
        return judge_maps(residual_maps(frame, keeper), self.noise).score


def read_cameras(folder: Path, work: Path | None) -> list[Camera]:
    """Every camera of `pairs.csv`, with its noise model."""
    found: dict[str, list[Pair]] = {}
    with (folder / "pairs.csv").open(newline="", encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            pair = Pair(
                row["kind"], row["split"] == "past", row["label"] == "quiet", row["a"], row["b"]
            )
            found.setdefault(row["camera"], []).append(pair)
    return [_camera(folder, name, pairs, work) for name, pairs in found.items()]


def _camera(folder: Path, name: str, pairs: list[Pair], work: Path | None) -> Camera:
    paths = sorted({path for pair in pairs for path in (pair.a, pair.b)})
    frames = footage(name, [_picture(folder / path) for path in paths], work).frames
    pictures = {path: prepare(frame) for path, frame in zip(paths, frames, strict=True)}
    quiet = [residual_maps(pictures[p.b], pictures[p.a]) for p in pairs if p.past and p.quiet]
    model = NoiseModel.from_pairs(quiet, quiet_share=1.0)
    if model is None:
        raise SystemExit(f"{folder}: too few quiet pairs of the past for {name}")
    return Camera(name, pairs, pictures, model.limits())


def _picture(path: Path) -> Picture:
    pixels = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if pixels is None:
        raise SystemExit(f"{path} is not a picture")
    return Picture(path.name, np.asarray(pixels, dtype=np.uint8))


def all_scores(cameras: Sequence[Camera]) -> Scores:
    """Score every later pair."""
    kinds = [kind for kind, *_ in (*FOUND, *MERGED)]
    return {
        (camera.name, kind): np.array([camera.score(*pair) for pair in camera.later(kind)])
        for camera in cameras
        for kind in kinds
    }


def percent(scores: Scores, kind: str, limit: float) -> tuple[float, int]:
    """Percent of the pairs of a kind up to `limit`, over all cameras, and their number."""
    all_of_kind = np.concatenate([found for (_, one), found in scores.items() if one == kind])
    return 100 * float((all_of_kind <= limit).mean()), len(all_of_kind)


def quality_rows(scores: Scores, limit: float) -> list[Row]:
    """What is found and what is merged at the default threshold."""
    rows = []
    for kind, name, must, aim in FOUND:
        share, count = percent(scores, kind, limit)
        note = f"aim {aim} %; {count} pairs"
        rows.append(
            Row(f"quiet found, {name}", f"{share:.1f} %", f">= {must} %", share >= must, note)
        )
    for kind, name, most, goal in MERGED:
        share, count = percent(scores, kind, limit)
        note = f"aim {goal:g} %; {count} pairs"
        rows.append(Row(f"merged, {name}", f"{share:.1f} %", f"<= {most:g} %", share <= most, note))
    return rows


def speed_rows(cameras: Sequence[Camera]) -> list[Row]:
    """Processor time of one thread for a pair, the per-frame parts left out."""
    rows = []
    for camera in cameras:
        for kind in [kind for name, kind in TIMED if name == camera.name]:
            pairs = camera.later(kind)
            taken = []
            for _ in range(ROUNDS):
                start = time.thread_time()
                for pair in pairs:
                    camera.score(*pair)
                taken.append(1000 * (time.thread_time() - start) / len(pairs))
            best = min(taken)
            name = f"processor time of a pair, {camera.name} {kind}"
            rows.append(
                Row(name, f"{best:.2f} ms", f"<= {MOST_MS:g} ms", best <= MOST_MS, "aim 1 ms")
            )
    return rows


def curves(scores: Scores, limit: float) -> str:
    """Other thresholds, and each camera alone at the default one, as Markdown."""
    kinds = [kind for kind, *_ in (*FOUND, *MERGED)]
    thresholds = [
        (f"{value:g}", *(f"{percent(scores, kind, value)[0]:.1f}" for kind in kinds))
        for value in sorted({*CURVE, limit})
    ]
    alone = []
    for camera in dict.fromkeys(name for name, _ in scores):
        found = [scores[camera, kind] for kind in kinds]
        shares = [f"{100 * (one <= limit).mean():.1f}" if one.size else "" for one in found]
        alone.append((camera, *shares))
    return "\n\n".join(
        [markdown(("threshold", *kinds), thresholds), markdown(("camera", *kinds), alone)]
    )


class Measured(NamedTuple):
    """All rows, and the curves as Markdown."""

    rows: list[Row]
    text: str


def measure(pairs: Path, work: Path | None) -> Measured:
    """Score all pairs; `work` keeps tile maps, None leaves the encoder out."""
    limit = DedupSettings().max_change
    cameras = read_cameras(pairs, work)
    scores = all_scores(cameras)
    return Measured(quality_rows(scores, limit) + speed_rows(cameras), curves(scores, limit))


def main() -> int:
    """Print the rows; 1 if one misses its mark."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("pairs", type=Path, metavar="PAIRS_FOLDER")
    parser.add_argument("work", type=Path, nargs="?", metavar="WORK_FOLDER")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    rows, text = measure(args.pairs, args.work)
    print(f"{table(rows)}\n\n{text}")
    return 0 if all_hold(rows) else 1


if __name__ == "__main__":
    sys.exit(main())
