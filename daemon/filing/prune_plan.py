"""What prune would do now, and why not more: reads the database and the disks, changes nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from daemon.filing.disk_budget import measure, shortfall
from daemon.filing.prune import taken_out
from daemon.filing.redundancy import (
    DAY,
    Limits,
    PruneBrake,
    as_much_as_needed,
    hold_back,
    most_redundant_first,
    ripe_for_deletion,
    ripe_for_trash,
)
from daemon.settings import PruneSettings
from storage import uptime
from storage.engine import Database
from storage.names import FRAME, format_id
from storage.plan_entries import NewEntry
from storage.root_guard import GuardedRoot, load_roots
from storage.trash import (
    RedundantFrame,
    bytes_on_disk,
    done_since,
    frames_in_trash,
    frames_on_disk,
    redundant_frames,
)


@dataclass(slots=True, kw_only=True)
class PrunePlan:
    """What would go to the trash and what from it, most redundant first.

    `missing_bytes`: what the owner's goal lacks even so; None without a goal. `taken_out`: frames
    whose file somebody took from the trash. `notes`: what holds it back, in words. `too_young`:
    redundant frames that are not old enough for the trash.
    """

    to_trash: list[RedundantFrame] = field(default_factory=list)
    to_delete: list[RedundantFrame] = field(default_factory=list)
    brakes: list[PruneBrake] = field(default_factory=list)
    missing_bytes: int | None = None
    taken_out: list[int] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    too_young: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Facts:
    """What the database and the disks say at this moment."""

    redundant: Sequence[RedundantFrame]
    trash: Sequence[RedundantFrame]
    on_disk: Mapping[int, int]
    trashed_today: Mapping[int, int]
    deleted_today: Mapping[int, int]
    roots: Mapping[int, GuardedRoot]
    uptime: float
    distrust: str | None
    since_jump: float
    pictures: int


def plan_prune(
    db: Database, settings: PruneSettings, now: float, *, explicit: bool, at_once: bool
) -> PrunePlan:
    """Choose what goes to the trash and what is deleted from it.

    Args:
        db: The database; read only.
        settings: The owner's policy.
        now: Wall-clock seconds.
        explicit: The owner asks for this very run: the brake and the share of a day do not hold.
        at_once: Everything redundant goes to the trash whatever its age, nothing is deleted.
    """
    facts = _read(db, now)
    plan = PrunePlan()
    gone = taken_out(facts.roots, list(facts.trash))
    plan.taken_out = gone
    if facts.distrust is not None:
        plan.notes.append(f"The clock is not trusted, so no age is: {facts.distrust}.")
    limits = None if explicit else _limits(settings, facts.trashed_today)
    _choose_for_trash(plan, facts, settings, now, limits, at_once=at_once)
    if not at_once:
        limits = None if explicit else _limits(settings, facts.deleted_today)
        left = set(gone)
        trash = [frame for frame in facts.trash if frame.id not in left]
        _choose_for_deletion(plan, facts, trash, settings, now, limits)
    return plan


def _read(db: Database, now: float) -> _Facts:
    with db.read() as connection:
        return _Facts(
            redundant=redundant_frames(connection),
            trash=frames_in_trash(connection),
            on_disk=frames_on_disk(connection),
            trashed_today=done_since(connection, "trash", now - DAY),
            deleted_today=done_since(connection, "delete", now - DAY),
            roots=load_roots(connection),
            uptime=uptime.total(connection),
            distrust=uptime.distrust(connection, now),
            since_jump=uptime.since_jump(connection),
            pictures=bytes_on_disk(connection),
        )


def _limits(settings: PruneSettings, done: Mapping[int, int]) -> Limits:
    return Limits(
        brake_share=settings.brake_share,
        brake_files=settings.brake_files,
        share_per_day=settings.max_share_per_day,
        done=done,
    )


def _choose_for_trash(
    plan: PrunePlan,
    facts: _Facts,
    settings: PruneSettings,
    now: float,
    limits: Limits | None,
    *,
    at_once: bool,
) -> None:
    if at_once:
        ripe = list(facts.redundant)
    elif facts.distrust is not None:
        ripe = []
    elif facts.since_jump < settings.trash_after_days * DAY:
        # Ages from before the clock was set mean nothing; nobody is younger than this uptime.
        ripe = []
        plan.notes.append(
            "The clock was set: nothing goes to the trash before as many days of running have"
            f" passed since ({facts.since_jump / DAY:.1f} of {settings.trash_after_days:g})."
        )
    else:
        ripe = ripe_for_trash(facts.redundant, now, settings.trash_after_days)
        plan.too_young = len(facts.redundant) - len(ripe)
    ordered = most_redundant_first(ripe)
    plan.to_trash, brakes = hold_back(ordered, "trash", facts.on_disk, limits)
    plan.brakes += brakes
    plan.notes += [_brake_words(brake, "go to the trash") for brake in brakes]


def _choose_for_deletion(
    plan: PrunePlan,
    facts: _Facts,
    trash: Sequence[RedundantFrame],
    settings: PruneSettings,
    now: float,
    limits: Limits | None,
) -> None:
    ripe: list[RedundantFrame] = []
    if facts.distrust is None:
        ripe = ripe_for_deletion(trash, now, facts.uptime, settings.delete_after_days)
    vouched = [frame for frame in ripe if frame.keeper_here]
    if len(vouched) < len(ripe):
        plan.notes.append(
            f"{len(ripe) - len(vouched)} in the trash have no keeper on disk any more and are not"
            " deleted; `stillwatch restore FRAME` brings them back."
        )
    chosen = most_redundant_first(vouched)
    if settings.has_budget:
        goal = shortfall(settings, *measure(facts.roots), facts.pictures)
        chosen, _ = as_much_as_needed(chosen, goal)
        chosen, brakes = hold_back(chosen, "delete", facts.on_disk, limits)
        plan.missing_bytes = as_much_as_needed(chosen, goal)[1]
        if plan.missing_bytes:
            plan.notes.append(_goal_words(plan.missing_bytes, facts, trash))
    else:
        chosen, brakes = hold_back(chosen, "delete", facts.on_disk, limits)
    plan.to_delete = chosen
    plan.brakes += brakes
    plan.notes += [_brake_words(brake, "be deleted") for brake in brakes]


def _brake_words(brake: PruneBrake, verb: str) -> str:
    return (
        f"Braked: {brake.frames} of the {brake.on_disk} frames of one camera would {verb} at once;"
        " look at `stillwatch prune`, then `stillwatch prune --yes` does it."
    )


def _goal_words(missing: int, facts: _Facts, trash: Sequence[RedundantFrame]) -> str:
    waiting = sum(frame.size for frame in trash)
    redundant = sum(frame.size for frame in facts.redundant)
    words = f"The goal for the disk cannot be met now: {missing:,} bytes are missing"
    if not waiting and not redundant:
        return f"{words}, and nothing redundant is left; what is unique is never deleted."
    return (
        f"{words}. Redundant are {waiting:,} bytes in the trash and {redundant:,} outside; nothing"
        " goes before its age."
    )


def entry_of(frame: RedundantFrame, action: str, now: float) -> NewEntry:
    """A frame as an entry of a trash or prune run, with the reason in words."""
    keeper = format_id(FRAME, frame.keeper_id)
    what = f"{frame.kind} duplicate of {keeper}"
    if frame.change_score is not None:
        what += f", change score {frame.change_score:.2f}"
    if action == "delete" and frame.trashed_at is not None:
        day = datetime.fromtimestamp(frame.trashed_at).astimezone().date().isoformat()
        what += f", in the trash since {day}"
    else:
        what += f", {max(0.0, now - frame.since) / DAY:.1f} days old"
    return NewEntry(
        frame_id=frame.id,
        keeper_id=frame.keeper_id,
        sha256=frame.sha256,
        size=frame.size,
        change_score=frame.change_score,
        reason=what,
        action=action,
    )
