"""Does a figure that was sampled for hours grow? Its slope per hour, with a confidence interval."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy import stats

BLOCKS: Final = 12
"""Neighbouring samples are alike, so they are averaged first: the blocks count as independent."""
CONFIDENCE: Final = 0.95
WARM_UP_SHARE: Final = 0.25
"""The first part of a run is left out: caches fill, the first clustering comes."""


@dataclass(frozen=True, slots=True)
class Slope:
    """Change per hour of a figure with its interval of 95 %; `mean` over the same time."""

    per_hour: float
    low: float
    high: float
    mean: float

    def grows(self, tolerance: float) -> bool:
        """Whether it surely grows, and by more than `tolerance` an hour."""
        return self.low > 0 and self.per_hour > tolerance

    def is_flat(self, tolerance: float) -> bool:
        """Whether it surely changes by less than `tolerance` an hour."""
        return -tolerance < self.low and self.high < tolerance

    def verdict(self, tolerance: float) -> str:
        """In a word or two."""
        if self.is_flat(tolerance):
            return "flat"
        if self.grows(tolerance):
            return "grows"
        return "falls" if self.high < -tolerance else "too short to tell"


def slope(seconds: Sequence[float], values: Sequence[float]) -> Slope:
    """Least squares through the means of twelve blocks, after the warm-up.

    Args:
        seconds: When each sample was taken, ascending.
        values: The samples; NaN where there is none.

    Raises:
        ValueError: Too few samples.
    """
    times, figures = np.asarray(seconds, float), np.asarray(values, float)
    known = np.isfinite(figures)
    known &= times >= times[0] + WARM_UP_SHARE * (times[-1] - times[0])
    times, figures = times[known] / 3600, figures[known]
    if len(times) < 2 * BLOCKS:
        raise ValueError(f"{len(times)} samples after the warm-up are too few")
    middles = [part.mean() for part in np.array_split(times, BLOCKS)]
    means = [part.mean() for part in np.array_split(figures, BLOCKS)]
    if np.ptp(means) == 0:
        return Slope(0.0, 0.0, 0.0, float(means[0]))
    line = stats.linregress(middles, means)
    reach = float(stats.t.ppf((1 + CONFIDENCE) / 2, BLOCKS - 2) * line.stderr)
    per_hour = float(line.slope)
    return Slope(per_hour, per_hour - reach, per_hour + reach, float(figures.mean()))
