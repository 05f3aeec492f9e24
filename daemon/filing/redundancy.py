"""What may be freed, in which order, and how much of it at once: pure functions.

Only redundant frames come in here, so nothing else can be freed, however full the disk is.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from storage.trash import RedundantFrame

DAY: Final = 86400.0
_STEPS: Final = 10
"""Steps of the change score within one of which the size of the group decides."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneBrake:
    """A camera of which more would go at once than may go unasked."""

    camera_id: int
    action: str
    frames: int
    on_disk: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much of a camera may go unasked. `done`: camera id -> frames gone in the last day."""

    brake_share: float
    brake_files: int
    share_per_day: float
    done: Mapping[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shortfall:
    """Bytes to be freed to reach the owner's goal.

    `by_volume`: on each filesystem; `volumes`: camera id -> its filesystem; `overall`: wherever.
    """

    by_volume: Mapping[int, int]
    volumes: Mapping[int, int]
    overall: int = 0

    @property
    def total(self) -> int:
        """What must be freed at least."""
        return max(self.overall, sum(self.by_volume.values()))


def most_redundant_first(frames: Iterable[RedundantFrame]) -> list[RedundantFrame]:
    """Exact duplicates, then near-duplicates: the lower the change score the sooner.

    Scores that differ by less than a tenth count as equal: of those the larger group gives first,
    because more of it is left, then the older frame. Copies in an archive have no change score and
    come last.
    """
    return sorted(frames, key=_order)


def _order(frame: RedundantFrame) -> tuple[int, int, int, float]:
    known = frame.kind == "exact" or frame.change_score is not None
    step = int((frame.change_score or 0.0) * _STEPS)
    return (0 if frame.kind == "exact" else 1 if known else 2, step, -frame.members, frame.since)


def ripe_for_trash(
    frames: Iterable[RedundantFrame], now: float, days: float
) -> list[RedundantFrame]:
    """The frames that arrived at least so many days ago."""
    return [frame for frame in frames if now - frame.since >= days * DAY]


def ripe_for_deletion(
    frames: Iterable[RedundantFrame], now: float, uptime: float, days: float
) -> list[RedundantFrame]:
    """The frames that lay in the trash so many days, by the wall clock and by uptime."""
    return [
        frame
        for frame in frames
        if frame.trashed_at is not None
        and frame.trashed_uptime is not None
        and now - frame.trashed_at >= days * DAY
        and uptime - frame.trashed_uptime >= days * DAY
    ]


def as_much_as_needed(
    frames: Sequence[RedundantFrame], shortfall: Shortfall
) -> tuple[list[RedundantFrame], int]:
    """The first of the frames that reach the goal, and the bytes that are missing even so."""
    missing = dict(shortfall.by_volume)
    overall = shortfall.overall
    chosen = []
    for frame in frames:
        volume = shortfall.volumes.get(frame.camera_id)
        if volume is None:
            continue
        if missing.get(volume, 0) <= 0 and overall <= 0:
            continue
        chosen.append(frame)
        missing[volume] = missing.get(volume, 0) - frame.size
        overall -= frame.size
    left = sum(amount for amount in missing.values() if amount > 0)
    return chosen, max(left, overall, 0)


def hold_back(
    frames: Sequence[RedundantFrame],
    action: str,
    on_disk: Mapping[int, int],
    limits: Limits | None,
) -> tuple[list[RedundantFrame], list[PruneBrake]]:
    """What may go unasked: nothing of a braked camera, of others a day's share.

    Args:
        frames: In the order in which they would go.
        action: `trash` or `delete`, for the brake.
        on_disk: Camera id -> frames on disk.
        limits: None: the owner asked for this very run.
    """
    if limits is None:
        return list(frames), []
    wanted: dict[int, int] = {}
    for frame in frames:
        wanted[frame.camera_id] = wanted.get(frame.camera_id, 0) + 1
    brakes = [
        PruneBrake(camera_id=camera, action=action, frames=count, on_disk=on_disk.get(camera, 0))
        for camera, count in sorted(wanted.items())
        if count > limits.brake_files or count > limits.brake_share * on_disk.get(camera, 0)
    ]
    braked = {brake.camera_id for brake in brakes}
    left = {
        camera: int(limits.share_per_day * on_disk.get(camera, 0)) - limits.done.get(camera, 0)
        for camera in wanted
    }
    allowed = []
    for frame in frames:
        if frame.camera_id not in braked and left[frame.camera_id] > 0:
            left[frame.camera_id] -= 1
            allowed.append(frame)
    return allowed, brakes
