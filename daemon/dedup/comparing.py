"""A frame against the live keepers: in what order, by which limit, and what came out."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from daemon.dedup.change import NoiseLimits, Prepared, ResidualMaps, judge_maps, residual_maps
from daemon.dedup.judge_state import Keeper
from daemon.messages import ChangeResult


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeSettings:
    """What the owner may set of the judge; the defaults are those of `[dedup]`."""

    max_change: float = 2.6
    max_change_pixels: float = 2.5
    keepers_compared: int = 6
    max_gap_seconds: float = 3600.0

    def threshold(self, result: ChangeResult) -> float:
        """The limit for a score, by whether the encoder's tile map took part in it."""
        return self.max_change_pixels if result.tile_score is None else self.max_change

    def finds_quiet(self, result: ChangeResult) -> bool:
        """Whether nothing visible changed, as far as this pair can tell."""
        return result.comparable and result.score <= self.threshold(result)


@dataclass(frozen=True, slots=True)
class Comparison:
    """A frame against one keeper."""

    keeper: Keeper
    maps: ResidualMaps
    result: ChangeResult


def compare(
    frame: Prepared,
    keepers: Sequence[Keeper],
    limits: NoiseLimits | None,
    settings: JudgeSettings,
    *,
    last: Collection[int],
) -> list[Comparison]:
    """Compare a frame with the keepers up to the first match.

    Args:
        frame: That is judged.
        keepers: Most recently matched first.
        limits: The noise granted to the frame; None where it is not known.
        settings: The owner's limits.
        last: Ids of keepers that are asked after all others.

    Returns:
        What was compared, in that order; only the last of them can be a match.
    """
    compared: list[Comparison] = []
    for keeper in sorted(keepers, key=lambda one: one.frame_id in last):
        maps = residual_maps(frame, keeper.prepared)
        compared.append(Comparison(keeper, maps, judge_maps(maps, limits)))
        if settings.finds_quiet(compared[-1].result):
            break
    return compared
