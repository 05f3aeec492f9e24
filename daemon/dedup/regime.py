"""Whether what was learnt of a camera still holds: its view, its light, its noise.

A noise model belongs to one view under one light. A camera that was turned gets a new warm-up; in
the dark less noise is granted; where nothing is found quiet any more, the noise is learnt anew.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Final

import numpy as np

from daemon.dedup.alignment import ALIGNED
from daemon.dedup.change import NoiseLimits, ResidualMaps, judge_maps, prepare, residual_maps
from daemon.dedup.light import GAIN_LIMITS
from daemon.dedup.noise import PIXEL_BOUNDS, NoiseModel
from daemon.messages import ChangeResult, JudgedFrame

TURNED: Final = 5
"""Kept frames in a row of one new view after which the camera counts as turned for good: a lorry
or a hand before the lens is gone by then."""
AWAY: Final = 6
"""Frames without a match after which a view that comes back begins a run, whose first frame is
kept: when the visitor left, or the lamp went out again, is worth one frame."""
STUCK: Final = 40
"""Kept frames in a row after which the noise model is doubted: it may belong to other light."""
STILL: Final = 0.5
"""Share of its own pairs that a new noise model must find quiet to be taken."""


def another_view(maps: ResidualMaps) -> bool:
    """Whether the pair could not be laid over each other; not so for light, darkness or fog."""
    return not maps.comparable and maps.displaced is not None and maps.displaced > ALIGNED


def follow_view(
    turned: Sequence[int],
    frame_id: int,
    before: Sequence[ResidualMaps],
    since: Sequence[ResidualMaps],
) -> list[int]:
    """Which frames, in a row up to this one, show another view than all keepers before them.

    Args:
        turned: What this function gave for the frame before.
        frame_id: The frame.
        before: Its residuals against keepers that are not in `turned`.
        since: Its residuals against those that are.

    Returns:
        Ids; empty as soon as one keeper from before fits, or when there is none to ask.
    """
    if not before or any(not another_view(maps) for maps in before):
        return []
    if since and any(not another_view(maps) for maps in since):
        return [*turned, frame_id]
    return [frame_id]  # the first of a new view, or again another


def limits_under(light: float, noise: NoiseModel, frame: JudgedFrame) -> NoiseLimits:
    """The noise granted to a frame; less where it is darker than what the noise was learnt from.

    What waves or glitters by day is as much fainter at night as the light is; were it granted in
    full, a faint object in the dark would pass for noise.

    Args:
        light: Mean grey level that the noise was learnt under; 0 where it is not known.
        noise: Of the camera.
        frame: That is judged.
    """
    limits = noise.limits()
    darker = float(frame.grey.mean()) / (GAIN_LIMITS[0] * light) if light > 0 else 1.0
    if darker >= 1:
        return limits
    pixel = np.maximum(limits.pixel * np.float32(darker), np.float32(PIXEL_BOUNDS[0]))
    return NoiseLimits(pixel, limits.tile)


def mean_light(frames: Sequence[JudgedFrame]) -> float:
    """Mean grey level of some frames, 0 to 255."""
    return float(np.mean([frame.grey.mean() for frame in frames]))


def learn_anew(
    kept: Sequence[JudgedFrame], finds_quiet: Callable[[ChangeResult], bool]
) -> NoiseModel | None:
    """A noise model from frames that were all kept, or None if they are not still by its measure.

    Where light or season changed, no frame is judged quiet any more, and so none teaches the model.
    Where people walk through every frame, a new model does not call that quiet either.

    Args:
        kept: The newest kept frames, in capture order.
        finds_quiet: Whether a pair shows no change, by the owner's limits.
    """
    prepared = [prepare(frame) for frame in kept]
    pairs = [residual_maps(later, earlier) for earlier, later in pairwise(prepared)]
    model = NoiseModel.from_pairs(pairs)
    if model is None:
        return None
    quiet = sum(finds_quiet(judge_maps(pair, model.limits())) for pair in pairs)
    return model if quiet >= STILL * len(pairs) else None
