"""Verdicts in plain words: what the owner reads when asking why."""

from math import isfinite
from typing import Final

import numpy as np

from daemon.messages import ChangeResult, FloatArray

VIEW_CHANGED: Final = "the camera shows another view than before"
TURNED_AWAY: Final = "the camera was turned: its noise is learnt anew"
TURNED_WHILE_LEARNING: Final = "the camera was turned before the noise model was ready"


def returned(keeper_id: int, away: int) -> str:
    """Why a frame without a change is kept: it is the first after something else."""
    return f"first of a run: looks like f{keeper_id} again after {away} other frames"


def unchanged(keeper_id: int, result: ChangeResult, threshold: float) -> str:
    """Why a frame is redundant: "no visible change from f12: score 0.81 of 2.60".

    Where the score was largest is no reason here, and the words stand in the database twice for
    every redundant frame; `why` names the tile.
    """
    return f"no visible change from f{keeper_id}: {_score(result, threshold)}"


def changed(keeper_id: int, result: ChangeResult, threshold: float) -> str:
    """Why a frame is kept: "changed since f12: score 7.20 of 2.60, strongest at ..."."""
    return f"changed since f{keeper_id}: {_measure(result, threshold)}"


def duration(seconds: float) -> str:
    """A length of time in the largest fitting unit: "45 s", "12 min", "3.5 h", "2.0 days"."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    if seconds < 172800:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86400:.1f} days"


def distance_between(a: FloatArray | None, b: FloatArray | None) -> float | None:
    """Cosine distance of two unit vectors (dim,), 0 to 2; None if one is missing."""
    if a is None or b is None or a.shape != b.shape:
        return None
    return float(np.clip(1.0 - np.dot(a.astype(np.float32), b.astype(np.float32)), 0.0, 2.0))


def _score(result: ChangeResult, threshold: float) -> str:
    return f"score {result.score:.2f} of {threshold:.2f}"


def _measure(result: ChangeResult, threshold: float) -> str:
    score = _score(result, threshold)
    if result.tile is None or not isfinite(result.score) or result.score == 0:
        return score
    x, y, width, height = result.tile
    across, down = 100 * (x + width / 2), 100 * (y + height / 2)
    return f"{score}, strongest at x {across:.0f} %, y {down:.0f} %"
