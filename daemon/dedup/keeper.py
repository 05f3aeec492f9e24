"""Which frames of an ended run stay: its keeper, perhaps its last frame, perhaps a better keeper.

The judge keeps the first frame of a run, on arrival. When no later frame can join the run, its
last frame may stay too, and the keeper may be exchanged for a better picture of the same view;
the latter only if every frame that would be removed passes the change test against it.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import cv2
import numpy as np

from daemon.dedup.change import NoiseLimits, Prepared, judge_maps, residual_maps
from daemon.dedup.reasons import duration
from daemon.messages import ByteArray, ChangeResult, FloatArray

Policy = Literal["first", "sharpest", "last", "largest", "medoid"]

LONG_FRAMES: Final = 10
LONG_SECONDS: Final = 600.0
"""A run of at least so many frames over at least so long keeps its last frame too: it proves that
nothing had changed until then."""
SHARPER: Final = 1.5
"""A clearly sharper picture has this many times the keeper's sharpness. Measured within runs of
three still cameras: 90 % of the frames have 0.96 to 1.10 times their keeper's, the most 1.11; a
blur of 0.6 pixels of the grey picture costs a factor of 1.4 to 1.5, one of 0.8 pixels 1.8 to 2.1,
and the change test still passes both."""
EXPOSURE_LOST: Final = 0.02
"""Share of the picture that a sharper frame may lose to black or white."""
ATTEMPTS: Final = 3
"""Candidates that are tried at most: each is compared with every frame of the run."""
_SMOOTHING = 1.2  # pixels of the grey picture; noise of single pixels is not sharpness
_BLACK, _BLOWN_OUT = 8, 247


@dataclass(frozen=True, slots=True)
class Quality:
    """How good a grey picture is, as the two columns of a frame have it.

    `sharpness`: variance of the Laplacian of the slightly smoothed picture, grey levels squared.
    `exposure`: share of pixels that are neither black nor blown out, 0 to 1.
    """

    sharpness: float
    exposure: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFrame:
    """A frame of a run.

    `seconds`: capture time or None; `pixels`: width times height; `size`: bytes of the file.
    `vector`: unit length or None. `removable` False: a human or an alarm keeps it.
    """

    frame_id: int
    seconds: float | None
    pixels: int
    size: int
    sharpness: float | None
    exposure: float | None
    vector: FloatArray | None = None
    removable: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What stays of a run.

    `keeper` stands for every frame but `last`, which stays beside it (None: it does not).
    `reason`, `last_reason`: in words, None where nothing changes. `results`: of every removed
    frame against a new keeper; empty where the keeper stays.
    """

    keeper: int
    last: int | None
    reason: str | None
    last_reason: str | None
    results: Mapping[int, ChangeResult]


Test = Callable[[int, Sequence[int]], Mapping[int, ChangeResult] | None]
"""Compares frames with a possible keeper; None if one of them does not pass."""


def measure(grey: ByteArray) -> Quality:
    """Sharpness and exposure of a grey picture, uint8 (height, width); about 0.2 ms at 320 px.

    Variance of the Laplacian: Pech-Pacheco et al., "Diatom autofocusing in brightfield
    microscopy", 2000.
    """
    smooth = cv2.GaussianBlur(grey.astype(np.float32), (0, 0), _SMOOTHING)
    sharpness = float(cv2.Laplacian(smooth, cv2.CV_32F, ksize=3).var())
    exposure = float(((grey >= _BLACK) & (grey <= _BLOWN_OUT)).mean())
    return Quality(round(sharpness, 3), round(exposure, 4))


def compare(
    keeper: Prepared, frames: Iterable[tuple[int, Prepared]], noise: NoiseLimits
) -> dict[int, ChangeResult]:
    """The change test of each (id, frame) against one keeper, by the camera's present noise."""
    return {frame_id: judge_maps(residual_maps(frame, keeper), noise) for frame_id, frame in frames}


def choose(run: Sequence[RunFrame], policy: Policy, test: Test) -> Choice:
    """Decide what stays of an ended run.

    Args:
        run: The keeper, then the frames removed against it in capture order.
        policy: Which frame shall stand for the others.
        test: Called with a candidate and all frames that would be removed.
    """
    first = run[0]
    last = _kept_last(run)
    others = [frame for frame in run[1:] if last is None or frame.frame_id != last.frame_id]
    last_reason = None if last is None else _last_reason(run)
    if first.removable:
        for candidate in candidates([first, *others], policy, has_last=last is not None):
            removed = [f.frame_id for f in (first, *others) if f.frame_id != candidate.frame_id]
            results = test(candidate.frame_id, removed)
            if results is not None:
                return Choice(
                    keeper=candidate.frame_id,
                    last=None if last is None else last.frame_id,
                    reason=_reason([first, *others], candidate, policy),
                    last_reason=last_reason,
                    results=results,
                )
    return Choice(
        keeper=first.frame_id,
        last=None if last is None else last.frame_id,
        reason=None,
        last_reason=last_reason,
        results={},
    )


def candidates(run: Sequence[RunFrame], policy: Policy, *, has_last: bool) -> list[RunFrame]:
    """Frames that the policy prefers to the keeper `run[0]`, best first, at most 3.

    Args:
        run: The keeper and the frames that it stands for, in capture order.
        policy: The owner's.
        has_last: The last frame stays anyway; then `last` has nothing to exchange.
    """
    first, others = run[0], run[1:]
    if policy == "first" or not others:
        return []
    if policy == "last":
        return [] if has_last else [others[-1]]
    if policy == "medoid":
        return _medoid(run)
    if policy == "largest":
        larger = [f for f in others if (f.pixels, f.size) > (first.pixels, first.size)]
        return sorted(larger, key=lambda f: (-f.pixels, -f.size))[:ATTEMPTS]
    sharper = [frame for frame in others if _clearly_better(frame, first)]
    return sorted(sharper, key=lambda frame: -(frame.sharpness or 0.0))[:ATTEMPTS]


def _kept_last(run: Sequence[RunFrame]) -> RunFrame | None:
    begin, end = run[0].seconds, run[-1].seconds
    if len(run) < LONG_FRAMES or begin is None or end is None or end - begin < LONG_SECONDS:
        return None
    return run[-1]


def _clearly_better(frame: RunFrame, keeper: RunFrame) -> bool:
    if frame.sharpness is None or keeper.sharpness is None:
        return False
    if frame.exposure is None or keeper.exposure is None:
        return False
    sharper = frame.sharpness >= SHARPER * keeper.sharpness
    return sharper and frame.exposure >= keeper.exposure - EXPOSURE_LOST


def _medoid(run: Sequence[RunFrame]) -> list[RunFrame]:
    """The frame of the least summed cosine distance to all others, unless that is the keeper."""
    if any(frame.vector is None for frame in run):
        return []
    vectors = np.stack([frame.vector for frame in run if frame.vector is not None])
    # unit vectors: the sum of the distances to n others is n minus the product with their sum
    best = int(np.argmax(vectors @ vectors.sum(axis=0)))
    return [run[best]] if best else []


def _reason(run: Sequence[RunFrame], keeper: RunFrame, policy: Policy) -> str:
    first = run[0]
    why = {
        "sharpest": (
            f"sharper than f{first.frame_id}"
            f" ({keeper.sharpness or 0:.0f} against {first.sharpness or 0:.0f})"
        ),
        "last": "the last of them",
        "largest": f"larger than f{first.frame_id} ({keeper.size:,} against {first.size:,} bytes)",
        "medoid": "the most typical of them",
    }[policy]
    return f"keeper of {len(run)} frames: {why}"


def _last_reason(run: Sequence[RunFrame]) -> str:
    length = duration((run[-1].seconds or 0.0) - (run[0].seconds or 0.0))
    return f"last of {len(run)} frames without a change in {length}, first f{run[0].frame_id}"
