"""Novelty of places on real cameras: events, a winter, things put into the picture, and the cost.

- Events: a bank of empty frames, then AUROC of event frames against the empty frames that were
  neither taught nor set aside for a calibration.
- Winter and things: every frame is scored before it is taught, in time order. A thing is put into
  a copy of every `EVERY`-th frame, which is scored in its stead and never taught; p is the
  conformal p-value among the camera's own earlier scores.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from daemon.clustering.places import PatchBank, PlaceScore, TileMap
from tests.benchmarks.embedded import Embedded, embedded
from tests.benchmarks.pasted import Box, put_into_all
from tests.benchmarks.rows import Row

EVENTS: Final = (("fixedcam_road", "car", 28, 0.99), ("cameratrap_box1", "small_mammal", 8, 0.97))
"""Folder, label of its events, empty frames for the bank (as many again set aside), least AUROC."""
CAMERAS: Final = (("fixedcam_road", 100), ("fixedcam_plaza", 200), ("fixedcam_tunnel", 200))
"""Folder, and frames before the first thing is put in."""
BAY: Final = "timelapse_bay"
SUMMER: Final = 700
"""Frames of the bay before its winter."""
AREAS: Final = (0.01, 0.04)
EVERY: Final = 5
BLOCK: Final = 50
"""Consecutive frames over which the worst rate is taken."""
MARGIN: Final = 1 / 14
"""Share of the picture by which a tile may lie beside a thing: its features look that far."""
MOST_MS: Final = 1.0


@dataclass(frozen=True, slots=True)
class Stream:
    """A camera in time order, with things that were put in.

    `scores` (n,) of each frame before it was taught, NaN while the bank was young. `things` (m,)
    scores of the frames with a thing, which stands in frame `at` (m,); `found` (m,) whether the
    strangest tile lies on it. `seconds` of processor a frame, at the end.
    """

    scores: NDArray[np.float64]
    things: NDArray[np.float64]
    at: NDArray[np.int64]
    found: NDArray[np.bool_]
    seconds: float

    def p_values(self, scores: NDArray[np.float64], at: NDArray[np.int64]) -> NDArray[np.float64]:
        """Conformal p of a score among those of the camera before frame `at`."""
        before = [self.scores[:row][~np.isnan(self.scores[:row])] for row in at]
        return np.array(
            [(1 + (b >= s).sum()) / (1 + len(b)) for s, b in zip(scores, before, strict=True)]
        )


def measure(dev: Path, work: Path, quick: bool) -> list[Row]:
    """All rows.

    Args:
        dev: Folder of the camera folders.
        work: Where embeddings and pictures with things are kept.
        quick: Two cameras, no winter, one size of things.
    """
    rows = [_events(dev, work, *event) for event in EVENTS]
    seconds = []
    for area in AREAS[:1] if quick else AREAS:
        for name, first in CAMERAS[:2] if quick else CAMERAS:
            row, cost = _things(dev, work, name, first, area)
            rows.append(row)
            seconds.append(cost)
    if not quick:
        rows.append(_winter(dev, work))
    cost_ms = 1000 * max(seconds)
    rows.append(
        Row(
            "places: score and teach a frame, processor time",
            f"{cost_ms:.2f} ms",
            f"<= {MOST_MS:.1f} ms",
            cost_ms <= MOST_MS,
            "median of the last 100 frames, the dearest camera",
        )
    )
    return rows


def _events(dev: Path, work: Path, name: str, label: str, taught: int, least: float) -> Row:
    from sklearn.metrics import roc_auc_score

    camera = embedded(dev, name, work).clear()
    empty = np.flatnonzero(camera.labels == "empty")
    events = np.flatnonzero(camera.labels == label)
    bank = PatchBank()
    for row in empty[:taught]:
        bank.grow(camera.tiles[row])
    judged = [*empty[2 * taught :], *events]
    scores = [_score(bank, camera.tiles[row]).score for row in judged]
    area = float(roc_auc_score(camera.labels[judged] == label, scores))
    note = f"{len(events)} event frames, {len(judged) - len(events)} empty ones, bank of {taught}"
    return Row(f"places: events, {name}", f"AUROC {area:.3f}", f">= {least}", area >= least, note)


def _things(dev: Path, work: Path, name: str, first: int, area: float) -> tuple[Row, float]:
    from sklearn.metrics import roc_auc_score

    camera = embedded(dev, name, work)
    at = np.arange(first, len(camera.paths), EVERY)
    folder = f"{name}-{area}"
    frames = [dev / name / camera.paths[row] for row in at]
    boxes = put_into_all(frames, dev / "labelled_fruits", area, work / folder)
    things = embedded(work, folder, work)
    stream = _stream(camera, things.tiles, boxes, at)
    known = stream.scores[first:]
    labels = np.repeat([False, True], [len(known), len(at)])
    auroc = float(roc_auc_score(labels, np.concatenate([known, stream.things])))
    p = stream.p_values(stream.things, at)
    own = stream.p_values(known, np.arange(first, len(stream.scores)))
    row = Row(
        f"places: things of {100 * area:.0f} % put in, {name}",
        f"AUROC {auroc:.3f}, tile on the thing {100 * stream.found.mean():.0f} %",
        ">= 0.98, >= 85 %",
        auroc >= 0.98 and float(stream.found.mean()) >= 0.85,
        f"p <= 1 / 5 %: {_shares(p)} of {len(at)} things, {_shares(own)} of its own frames",
    )
    return row, stream.seconds


def _winter(dev: Path, work: Path) -> Row:
    camera = embedded(dev, BAY, work)
    nothing = np.empty(0, dtype=np.int64)
    stream = _stream(camera, camera.tiles[:0], [], nothing)
    winter = np.arange(SUMMER, len(stream.scores))
    p = stream.p_values(stream.scores[winter], winter)
    worst = [
        max(np.convolve(p <= rate, np.ones(BLOCK) / BLOCK, mode="valid")) for rate in (0.01, 0.05)
    ]
    return Row(
        f"places: false alarms, {BAY}, winter after a summer",
        f"{_shares(p)} at 1 / 5 %",
        "reported",
        None,
        f"no adaptive limit; worst {BLOCK} frames {100 * worst[0]:.0f} / {100 * worst[1]:.0f} %",
    )


def _stream(camera: Embedded, things: TileMap, boxes: list[Box], at: NDArray[np.int64]) -> Stream:
    bank = PatchBank()
    scores = np.full(len(camera.paths), np.nan)
    found, strange, seconds = [], [], []
    waiting = dict(zip(at.tolist(), zip(things, boxes, strict=True), strict=True))
    for row, tiles in enumerate(camera.tiles):
        if row in waiting:
            thing, box = waiting[row]
            judged = _score(bank, thing)
            strange.append(judged.score)
            found.append(_on(judged, box))
        start = time.thread_time()
        score = bank.score(tiles)
        ready = bank.ready
        bank.grow(tiles)
        seconds.append(time.thread_time() - start)
        if score is not None and ready:
            scores[row] = score.score
    cost = float(np.median(seconds[-100:]))
    return Stream(scores, np.array(strange), at, np.array(found, dtype=bool), cost)


def _score(bank: PatchBank, tiles: TileMap) -> PlaceScore:
    score = bank.score(tiles)
    if score is None:
        raise ValueError("nothing was taught")
    return score


def _on(judged: PlaceScore, box: Box) -> bool:
    x, y = judged.tile[0] + judged.tile[2] / 2, judged.tile[1] + judged.tile[3] / 2
    left, top, width, height = box
    return (
        left - MARGIN <= x <= left + width + MARGIN and top - MARGIN <= y <= top + height + MARGIN
    )


def _shares(p: NDArray[np.float64]) -> str:
    return f"{100 * np.mean(p <= 0.01):.1f} / {100 * np.mean(p <= 0.05):.1f} %"
