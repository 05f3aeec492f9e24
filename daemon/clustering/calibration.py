"""How far is too far: conformal limits from the distances that are usual around known frames.

Every representative has a scale, the usual distance around it; the score of a frame is its
distance to the nearest representative divided by that scale, a simple form of the local outlier
factor (Breunig et al., 2000) in which every limit stays a cosine distance. Every representative is
left out once and scored against the others of its cluster; the limit is a conformal quantile of
such scores (Vovk et al., 2005; Papadopoulos et al., 2002, for the normalisation), so that small
clusters share the knowledge of all. Bursts must stay out: with them the usual distance is the
jitter of a burst, and a quarter of the good new views looks novel (measured).
"""

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from daemon.messages import FloatArray

MIN_SCORES: Final = 100
"""Scores below which no p-value is given (contract, section 4)."""
SPREAD_NEIGHBOURS: Final = 5
"""Nearest others of the cluster whose mean distance is the spread around a representative. One
is too few: left-out fruits are then told apart with an AUROC of 0.88, with five 0.98."""
SHRINKAGE: Final = 3.0
"""Distances that the pooled spread is worth against a representative's own."""
NOISE_REACH: Final = 4.0
"""Times the pooled spread that the spread around noise may be: a lonely frame must not vouch for
all that is new in its wide neighbourhood."""
DEFAULT_SCORE: Final = 4.0
"""Limit in scales while nothing was measured: twice the Euclidean radius of a burst when the
scale is `collapse_distance`, the same reach that a burst itself has."""
EARLY_QUANTILE: Final = 0.9
"""Quantile of fewer than `MIN_SCORES` scores that is the limit: a higher one is the largest of
them, often a stray burst inside a cluster, and while so little is known it is better to ask."""
FARTHEST: Final = 2.0


@dataclass(frozen=True, slots=True)
class Calibration:
    """What is usual around m representatives.

    `scales` (m,) float64: usual cosine distance around each, above 0. `left_out` (m,) float32:
    leave-one-out score of each, NaN where it is alone or noise. `scores` float32: those scores,
    ascending. `usual`: the scale of all clusters together. `cluster_scales`: label -> median
    scale of its representatives.
    """

    scales: NDArray[np.float64]
    left_out: FloatArray
    scores: FloatArray
    usual: float
    cluster_scales: Mapping[int, float]


def calibrate(
    distances: FloatArray, nearest: NDArray[np.int64], labels: NDArray[np.int64], floor: float
) -> Calibration:
    """Measure what is usual around every representative.

    Its spread is the mean distance to its nearest neighbours, drawn towards the median spread of
    all the fewer it has; its scale is the geometric mean of its spread and that median. Half of
    the way because a spread is measured on few frames: the whole of it costs 1.3 points of false
    novels among uneven clusters, none of it half of the recall (docs/adr/0008-novelty.md).

    Args:
        distances: (m, k) cosine distances of each representative to the nearest others of its
            cluster, of noise to the nearest of all; ascending, NaN where there are no more.
        nearest: (m,) which representative of its cluster is the nearest, -1 for none.
        labels: (m,) cluster of each, noise -1.
        floor: Smallest scale, cosine distance: `collapse_distance`.
    """
    near = distances[:, :SPREAD_NEIGHBOURS].astype(np.float64)
    known = ~np.isnan(near)
    count = known.sum(axis=1)
    total = np.where(known, near, 0.0).sum(axis=1)
    smallest = max(floor, float(np.finfo(np.float32).eps))
    inside = nearest >= 0
    spread = total[inside] / count[inside]
    usual = max(smallest, float(np.median(spread))) if len(spread) else smallest
    # a spread counts as often as it has distances, the pooled one SHRINKAGE times
    shrunk = (total + SHRINKAGE * usual) / (count + SHRINKAGE)
    shrunk[labels < 0] = np.minimum(shrunk[labels < 0], NOISE_REACH * usual)
    scales = np.maximum(np.where(count > 0, np.sqrt(shrunk * usual), usual), smallest)
    left_out = np.full(len(labels), np.nan, dtype=np.float32)
    # by the scale around the neighbour, as on arrival: by its own, every loner would look usual
    left_out[inside] = near[inside, 0] / scales[nearest[inside]]
    return Calibration(
        scales=scales,
        left_out=left_out,
        scores=np.sort(left_out[inside]),
        usual=usual,
        cluster_scales={
            int(name): float(np.median(scales[labels == name]))
            for name in np.unique(labels[labels >= 0])
        },
    )


def is_calibrated(scores: Sequence[float] | FloatArray, rate: float) -> bool:
    """Whether p-values may be given: enough scores, and p can get below `rate` at all."""
    return len(scores) >= max(MIN_SCORES, 1 / rate - 1)


def limit_score(scores: Sequence[float] | FloatArray, rate: float) -> float:
    """Largest score that is not novel at the false-novel rate `rate`.

    Args:
        scores: Ascending.
        rate: Above 0. Calibrated for it: the score above which p = (1 + #{s_i >= s}) / (n + 1)
            falls below it. Before, the pooled conformal quantile, at least `DEFAULT_SCORE`: few
            scores do not show the tail.
    """
    n = len(scores)
    if not is_calibrated(scores, rate):
        rank = min(n, math.ceil((n + 1) * min(1 - rate, EARLY_QUANTILE)))
        return max(DEFAULT_SCORE, float(scores[rank - 1])) if n else DEFAULT_SCORE
    return quantile_score(scores, rate)


def quantile_score(scores: Sequence[float] | FloatArray, rate: float) -> float:
    """The score above which p falls below `rate`; infinite where it never does."""
    n = len(scores)
    # fewest scores at least as large that keep p at or above the rate, in the same arithmetic
    # as p itself, so that "p < rate" and "farther than the limit" can never disagree
    beyond = max(0, math.ceil(rate * (n + 1)) - 1)
    while beyond > 0 and beyond / (n + 1) >= rate:
        beyond -= 1
    while beyond < n and (1 + beyond) / (n + 1) < rate:
        beyond += 1
    return float(scores[n - beyond]) if beyond else math.inf


def p_value(scores: Sequence[float] | FloatArray, scale: float, distance: float) -> float:
    """Conformal p-value of a distance: (1 + #{scale * s_i >= distance}) / (n + 1).

    The comparison is made in distances, as the limit is, so that rounding cannot part the two.
    `scores` ascending.
    """
    below = bisect_left(scores, distance, key=lambda score: scale * float(score))
    return (1 + len(scores) - below) / (len(scores) + 1)
