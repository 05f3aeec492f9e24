"""The prune job: old duplicates go to the trash, older ones from it, as the owner's policy says."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from daemon.filing.apply import ApplyResult
from daemon.filing.disk_budget import measure, shortfall
from daemon.filing.prune import PairTest, delete_run
from daemon.filing.prune_plan import PrunePlan, entry_of, plan_prune
from daemon.filing.redundancy import DAY
from daemon.filing.trash import trash_run
from daemon.jobs.child import Progress
from daemon.jobs.limits import camera_limit
from daemon.jobs.signatures import signature_parameters
from daemon.jobs.workshop import Workshop
from storage import cameras, meta, runs
from storage.errors import ConflictError
from storage.filing_rows import note_brake
from storage.names import FRAME, RUN, format_id
from storage.root_guard import load_roots
from storage.trash import PRUNE_BRAKE, RedundantFrame, bytes_on_disk, mark_taken_out

LAST_KEY: Final = "last_prune"
OFF_HINT: Final = (
    "Write `enabled = true` under [prune] in the settings, and look at `stillwatch prune` before."
    " `stillwatch prune --now --yes` moves what is redundant to the trash this once, and deletes"
    " nothing."
)


@dataclass(slots=True)
class _Done:
    """What became of the runs of one job."""

    trashed: list[ApplyResult] = field(default_factory=list)
    deleted: list[ApplyResult] = field(default_factory=list)

    def result(self, plan: PrunePlan) -> dict[str, Any]:
        every = self.trashed + self.deleted
        return {
            "trash_runs": [format_id(RUN, run.run_id) for run in self.trashed],
            "trashed": sum(run.applied for run in self.trashed),
            "bytes_trashed": sum(run.bytes for run in self.trashed),
            "prune_runs": [format_id(RUN, run.run_id) for run in self.deleted],
            "deleted": sum(run.applied for run in self.deleted),
            "bytes_freed": sum(run.bytes for run in self.deleted),
            "skipped": sum(len(run.skipped) for run in every),
            "missing_bytes": plan.missing_bytes,
            "notes": plan.notes,
            "entries": [
                {"frame": format_id(FRAME, entry.frame_id), "reason": entry.reason}
                for run in every
                for entry in run.skipped
            ],
        }


def prune(
    workshop: Workshop, progress: Progress, *, explicit: bool, at_once: bool = False
) -> dict[str, Any]:
    """Do what `plan_prune` chooses: runs of kind `trash`, which `undo` takes back, and `prune`.

    Args:
        workshop: State folder and settings.
        progress: Told the stage.
        explicit: The owner asked: no brake, and as many runs as it takes.
        at_once: Only to the trash, whatever the age, and also where the policy is off.

    Raises:
        ConflictError: The policy is off, or filing leaves the originals where they are.
        NotDurableError: The disk failed to confirm.
    """
    settings = workshop.settings
    if not settings.prune.enabled and not at_once:
        raise ConflictError("Pruning is switched off; nothing was done.", hint=OFF_HINT)
    if settings.filing.mode != "move":
        raise ConflictError(
            f"filing.mode is {settings.filing.mode}: the original files stay where they are.",
            hint="Only with filing.mode = move does stillwatch free room.",
        )
    workshop.db.files.require_durable()
    plan = plan_prune(
        workshop.db, settings.prune, workshop.wall(), explicit=explicit, at_once=at_once
    )
    _note(workshop, plan)
    done = _Done()
    for batch in _batches(workshop, plan.to_trash, every=explicit):
        done.trashed.append(_trash(workshop, batch, progress))
    for batch in _batches(workshop, plan.to_delete, every=explicit):
        done.deleted.append(_delete(workshop, batch, progress))
    result = done.result(plan)
    with workshop.db.write() as connection:
        meta.put(connection, LAST_KEY, _last(result, workshop.wall()))
    return result


def _batches(
    workshop: Workshop, frames: Sequence[RedundantFrame], *, every: bool
) -> list[Sequence[RedundantFrame]]:
    """Runs of at most `prune.max_files_per_run` frames; unasked only the first."""
    size = workshop.settings.prune.max_files_per_run
    batches = [frames[start : start + size] for start in range(0, len(frames), size)]
    return batches if every else batches[:1]


def _note(workshop: Workshop, plan: PrunePlan) -> None:
    with workshop.db.write() as connection:
        mark_taken_out(connection, plan.taken_out)
        for brake in plan.brakes:
            data = {"action": brake.action, "frames": brake.frames, "on_disk": brake.on_disk}
            note_brake(connection, brake.camera_id, data, workshop.wall(), PRUNE_BRAKE)


def _last(result: dict[str, Any], now: float) -> dict[str, Any]:
    kept = ("trashed", "deleted", "bytes_freed", "skipped", "missing_bytes", "notes")
    return {"at": now} | {key: result[key] for key in kept}


def _store(workshop: Workshop, kind: runs.RunKind, frames: Sequence[RedundantFrame]) -> int:
    action = "trash" if kind == "trash" else "delete"
    now = workshop.wall()
    entries = [entry_of(frame, action, now) for frame in frames]
    with workshop.db.write() as connection:
        return runs.create_run(connection, kind, entries, now=now)


def _trash(workshop: Workshop, frames: Sequence[RedundantFrame], progress: Progress) -> ApplyResult:
    with workshop.files:
        return trash_run(
            workshop.db,
            _store(workshop, "trash", frames),
            clock=workshop.wall,
            progress=_told(progress, "moving to the trash"),
            should_stop=lambda: workshop.processes.stopped,
        )


def _delete(
    workshop: Workshop, frames: Sequence[RedundantFrame], progress: Progress
) -> ApplyResult:
    tests = _test_again(workshop, frames, progress)
    with workshop.files:
        return delete_run(
            workshop.db,
            _store(workshop, "prune", frames),
            tests,
            clock=workshop.wall,
            progress=_told(progress, "deleting"),
            should_stop=lambda: workshop.processes.stopped,
        )


def _told(progress: Progress, stage: str) -> Callable[[int, int], None]:
    return lambda done, total: progress(stage, done, total)


def _test_again(
    workshop: Workshop, frames: Sequence[RedundantFrame], progress: Progress
) -> dict[int, PairTest]:
    """The change test of each pair of near-duplicates, from their files as they are now."""
    pairs: dict[int, list[tuple[int, int]]] = {}
    for frame in frames:
        if not frame.same_bytes:
            pairs.setdefault(frame.camera_id, []).append((frame.id, frame.keeper_id))
    if not pairs:
        return {}
    with workshop.db.read() as connection:
        known = {camera.id: camera for camera in cameras.list_cameras(connection)}
        asked = [
            {
                "id": camera_id,
                "archive": known[camera_id].kind == "archive",
                "pairs": chosen,
                "limits": {
                    name: camera_limit(
                        connection, workshop.settings, known[camera_id], tile_map=name == "tiles"
                    )
                    for name in ("tiles", "pixels")
                },
            }
            for camera_id, chosen in pairs.items()
        ]
    parameters = {
        "state_dir": str(workshop.state_dir),
        "signatures": signature_parameters(workshop),
        "cameras": asked,
    }
    with workshop.processes.run("daemon.jobs.prune_child", parameters, progress) as path:
        tests = json.loads(path.read_text())["tests"]
    return {
        frame: PairTest(keeper_id=keeper, passed=passed, reason=reason)
        for frame, keeper, passed, reason in tests
    }


def prune_due(workshop: Workshop) -> bool:
    """Whether the policy is on and a day has passed since the last run, or the disk is too full."""
    settings = workshop.settings.prune
    if not settings.enabled or workshop.settings.filing.mode != "move":
        return False
    with workshop.db.read() as connection:
        last = meta.get(connection, LAST_KEY)
        roots = load_roots(connection)
        pictures = bytes_on_disk(connection)
    if last is None or abs(workshop.wall() - float(last["at"])) >= DAY:
        return True
    if not settings.has_budget:
        return False
    return shortfall(settings, *measure(roots), pictures).total > 0
