"""The owner's "quiet found" as a limit of the change score, from what the camera itself showed.

Nobody labels the frames of a camera, so its stored scores are taken for a mixture: the quiet frames
below, whatever changed above. The score of a quiet frame is the largest of many tiles, and the
largest of many values of noise follows a Gumbel law (Fisher and Tippett 1928), here of the
logarithm; the changes lie wide above it. The two are told apart by expectation maximisation
(Dempster, Laird and Rubin 1977). So the limit is read from the quiet frames alone, however many
changes there are.
"""

from dataclasses import dataclass
from math import exp, log
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float64]
"""Change scores (n,), in any order."""

LEAST_SCORES: Final = 50
"""With fewer scores nothing is predicted and the ceiling holds."""
LEAST_SCORE: Final = 0.05
"""Lower scores count as this one: identical pictures say nothing of a camera's noise."""
LEAST_FOUND: Final = 0.05
"""If less of the lower law lies below the safe ceiling, it is that of changes: people walk through
every frame, the few quiet frames do not stand out, and nothing is predicted."""
SHOWN: Final = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98)
"""Shares of the quiet for which the curve is shown."""
_ROUNDS = 200
_SETTLED = 1e-5
_NARROWEST = 0.03
_WIDE = 0.2  # a narrower law of the changes would take the tail of the quiet frames for its own


@dataclass(frozen=True, slots=True)
class QuietSpread:
    """How the change scores of a camera's quiet frames spread.

    `place`, `scale`: of the Gumbel law of their natural logarithm. `share`: of all scores that
    are those of quiet frames, 0 to 1.
    """

    place: float
    scale: float
    share: float

    @classmethod
    def of(cls, scores: Scores) -> Self | None:
        """Estimate it from all scores of a camera; None with fewer than 50 finite ones."""
        known = scores[np.isfinite(scores)]
        if len(known) < LEAST_SCORES:
            return None
        logs = np.log(np.maximum(known, LEAST_SCORE))
        place, scale, share = float(np.quantile(logs, 0.2)), 0.2, 0.5
        middle, width = float(np.quantile(logs, 0.8)), 0.7
        for _ in range(_ROUNDS):
            z = (logs - place) / scale
            quiet = share * np.exp(-z - np.exp(np.minimum(-z, 50.0))) / scale
            changed = (1 - share) * np.exp(-0.5 * ((logs - middle) / width) ** 2)
            changed /= width * np.sqrt(2 * np.pi)
            weight = quiet / np.maximum(quiet + changed, np.finfo(np.float64).tiny)
            before, share = (place, scale), float(weight.mean())
            place, scale = _gumbel(logs, weight, scale)
            rest = np.maximum(1 - weight, 1e-12)
            middle = float(np.average(logs, weights=rest))
            width = max(_WIDE, float(np.sqrt(np.average((logs - middle) ** 2, weights=rest))))
            if max(abs(place - before[0]), abs(scale - before[1])) < _SETTLED:
                break
        return cls(place, scale, share)

    def limit(self, quiet_found: float) -> float:
        """The score below which this share of the quiet frames lies, 0 < share < 1."""
        return exp(self.place - self.scale * log(-log(quiet_found)))

    def found(self, limit: float) -> float:
        """The share of the quiet frames, 0 to 1, whose score is at most `limit`."""
        far = (log(max(limit, LEAST_SCORE)) - self.place) / self.scale
        return exp(-exp(-far)) if far > -50 else 0.0

    def predicted(self, limit: float, ceiling: float) -> float | None:
        """`found`, or None where the law is not that of quiet frames (`LEAST_FOUND`)."""
        return None if self.found(ceiling) < LEAST_FOUND else self.found(limit)


def _gumbel(logs: Scores, weight: Scores, scale: float) -> tuple[float, float]:
    """Weighted maximum likelihood of a Gumbel law, by fixed-point steps from `scale`."""
    lowest, mean = float(logs.min()), float(np.average(logs, weights=weight + 1e-12))
    for _ in range(8):
        tilted = weight * np.exp(-(logs - lowest) / scale) + 1e-300
        scale = max(_NARROWEST, (scale + mean - float(np.average(logs, weights=tilted))) / 2)
    tilted = weight * np.exp(-(logs - lowest) / scale)
    place = lowest - scale * log(max(float(tilted.sum()), 1e-300) / max(float(weight.sum()), 1e-12))
    return place, scale


def limit_for(scores: Scores, quiet_found: float | None, ceiling: float) -> float:
    """The change score up to which a camera's frames are near-duplicates.

    Args:
        scores: The camera's stored change scores, those of kept frames too; infinities and NaN are
            left out.
        quiet_found: Share of the quiet frames that the owner wants found, 0 to 1; None: as many as
            is safe.
        ceiling: The largest limit that is safe (`dedup.max_change`).

    Returns:
        Never more than the ceiling; the ceiling itself with fewer than 50 scores.
    """
    spread = None if quiet_found is None else QuietSpread.of(scores)
    if spread is None or quiet_found is None:
        return ceiling
    return min(ceiling, spread.limit(quiet_found))


@dataclass(frozen=True, slots=True, kw_only=True)
class CurvePoint:
    """What one choice of "quiet found" would do on one camera.

    `chosen`: the share asked for, None for the ceiling itself. `found`: the share predicted at
    `limit`, None where it cannot be told. `removed`, `removed_share`: frames that would be
    near-duplicates, of all judged ones.
    """

    chosen: float | None
    found: float | None
    limit: float
    removed: int
    removed_share: float


def curve(scores: Scores, frames: int, ceiling: float) -> list[CurvePoint]:
    """The predicted curve of a camera, from strict to the ceiling.

    Args:
        scores: As in `limit_for`, of frames that were compared with a keeper.
        frames: All judged frames, also those that were kept without a comparison.
        ceiling: As in `limit_for`.

    Returns:
        A point for each share of `SHOWN` whose limit is below the ceiling, then the ceiling; empty
        with fewer than 50 scores.
    """
    spread = QuietSpread.of(scores)
    if spread is None:
        return []
    limits: list[tuple[float | None, float]] = [(one, spread.limit(one)) for one in SHOWN]
    chosen = [(one, limit) for one, limit in limits if limit < ceiling]
    points = []
    for share, limit in [*chosen, (None, ceiling)]:
        removed = int((scores <= limit).sum())
        points.append(
            CurvePoint(
                chosen=share,
                found=spread.predicted(limit, ceiling),
                limit=limit,
                removed=removed,
                removed_share=removed / max(1, frames),
            )
        )
    return points
