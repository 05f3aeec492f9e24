"""What can be asked for, by kind: the same code in the daemon and without one.

Kinds, arguments and results stand in docs/architecture.md.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from daemon.filing.apply import ApplyResult, Moved, Skipped, apply_entries
from daemon.filing.folder_renames import rename_folders
from daemon.filing.undo import undo_run
from daemon.jobs import cluster_decisions, decisions
from daemon.jobs.child import Progress
from daemon.jobs.cluster_split import split_cluster
from daemon.jobs.decision_undo import undo_decisions
from daemon.jobs.dedup import plan_dedup
from daemon.jobs.duplicate_decisions import keep_frames, make_keeper, set_apart
from daemon.jobs.encoder_decisions import forget_space, switch_after_all, undo_switch
from daemon.jobs.evaluate import evaluate_cameras
from daemon.jobs.prune import prune
from daemon.jobs.recluster import recluster
from daemon.jobs.restore import restore
from daemon.jobs.workshop import Workshop
from daemon.repair import repair
from storage import runs
from storage.errors import ConflictError, NotFoundError, StillwatchError, UsageError
from storage.names import FRAME, RUN, format_id, path_fields


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a job came to: the JSON for the CLI and its exit code."""

    result: dict[str, Any]
    exit_code: int = 0


@dataclass(frozen=True, slots=True)
class Call:
    """One request as its handler sees it."""

    workshop: Workshop
    arguments: Mapping[str, Any]
    progress: Progress
    actor: str


def _recluster(call: Call) -> Outcome:
    return Outcome(recluster(call.workshop, call.progress))


def _dedup_plan(call: Call) -> Outcome:
    recompute = bool(call.arguments.get("recompute", False))
    return Outcome(plan_dedup(call.workshop, call.progress, at_once=True, recompute=recompute))


def _dedup_evaluate(call: Call) -> Outcome:
    camera, pairs = call.arguments.get("camera"), int(call.arguments["pairs"])
    return Outcome(evaluate_cameras(call.workshop, call.progress, camera=camera, pairs=pairs))


def _dedup_apply(call: Call) -> Outcome:
    run_id = call.arguments.get("run")
    with call.workshop.db.read() as connection:
        row = (
            runs.newest_run(connection, "dedup")
            if run_id is None
            else runs.get_run(connection, int(run_id))
        )
    if row is None or row["kind"] != "dedup":
        raise NotFoundError(
            "There is no dedup plan." if row is None else f"{format_id(RUN, run_id)} is no plan.",
            hint="`stillwatch dedup plan --new` makes one.",
        )
    if call.workshop.settings.filing.mode == "none":
        raise ConflictError("filing.mode is none: nothing may be moved.", hint="Change it first.")
    return apply_run(call.workshop, int(row["id"]), call.progress)


def apply_run(workshop: Workshop, run_id: int, progress: Progress) -> Outcome:
    """Apply a stored plan; exit code 3 when an entry had to be skipped."""
    with workshop.files:
        done = apply_entries(
            workshop.db,
            run_id,
            mode=workshop.settings.filing.mode,
            templates=workshop.settings.filing.templates,
            clock=workshop.wall,
            progress=lambda done, total: progress("moving files", done, total),
            should_stop=lambda: workshop.processes.stopped,
        )
    workshop.processes.require_running()
    return Outcome(_applied(done), 3 if done.partly else 0)


def _applied(done: ApplyResult) -> dict[str, Any]:
    return {
        "run": format_id(RUN, done.run_id),
        "applied": done.applied,
        "skipped": len(done.skipped),
        "bytes": done.bytes,
        "entries": [_skipped(entry) for entry in done.skipped],
    }


def _skipped(entry: Skipped) -> dict[str, Any]:
    where = {} if entry.path is None else path_fields(entry.path)
    return {"frame": format_id(FRAME, entry.frame_id)} | where | {"reason": entry.reason}


def _beside(moved: Moved) -> dict[str, Any]:
    reason = "its old name is taken: restored beside it"
    return (
        {"frame": format_id(FRAME, moved.frame_id)} | path_fields(moved.target) | {"reason": reason}
    )


def _dedup_discard(call: Call) -> Outcome:
    return Outcome(decisions.discard_plan(call.workshop, int(call.arguments["run"]), call.actor))


def _dedup_keep(call: Call) -> Outcome:
    ids = [int(number) for number in call.arguments["frames"]]
    if not ids:
        raise UsageError("Name at least one frame.")
    return Outcome(keep_frames(call.workshop, ids, call.actor))


def _dedup_apart(call: Call) -> Outcome:
    pair = int(call.arguments["frame"]), int(call.arguments["keeper"])
    return Outcome(set_apart(call.workshop, *pair, call.actor))


def _dedup_keeper(call: Call) -> Outcome:
    frame_id = int(call.arguments["frame"])
    return Outcome(make_keeper(call.workshop, frame_id, call.actor, call.progress))


def _undo(call: Call) -> Outcome:
    run_id = int(call.arguments["run"])
    with call.workshop.db.read() as connection:
        row = runs.get_run(connection, run_id)
    if row["kind"] == "decision":
        undone = undo_decisions(call.workshop, run_id)
        _follow_names(call.workshop)
        return Outcome(undone)
    if row["kind"] == "encoder":
        return Outcome(undo_switch(call.workshop, run_id, call.progress))
    if row["kind"] in ("recluster", "pool"):
        raise ConflictError(
            f"{format_id(RUN, run_id)} is a {row['kind']} run; it moved no file.",
            hint="Undo the filing run that followed it, or recluster with other settings.",
        )
    if row["kind"] == "prune":
        raise ConflictError(
            f"{format_id(RUN, run_id)} deleted files; that cannot be taken back.",
            hint="What is still in the trash can: `stillwatch frames --state trashed`.",
        )
    with call.workshop.files:
        done = undo_run(
            call.workshop.db,
            run_id,
            clock=call.workshop.wall,
            progress=lambda count, total: call.progress("restoring files", count, total),
            should_stop=lambda: call.workshop.processes.stopped,
        )
    call.workshop.processes.require_running()
    result = {
        "run": format_id(RUN, run_id),
        "restored": len(done.restored) + len(done.beside),
        "skipped": len(done.skipped),
        "entries": [
            *(_beside(moved) for moved in done.beside),
            *(_skipped(entry) for entry in done.skipped),
        ],
    }
    return Outcome(result, 3 if done.partly else 0)


def _novel(decide: Callable[..., dict[str, Any]]) -> Callable[[Call], Outcome]:
    def handle(call: Call) -> Outcome:
        ids = [int(number) for number in call.arguments["frames"]]
        if not ids:
            raise UsageError("Name at least one frame.")
        return Outcome(decide(call.workshop, ids, call.actor))

    return handle


def _rename(call: Call) -> Outcome:
    cluster_id, name = int(call.arguments["cluster"]), call.arguments.get("name")
    result = cluster_decisions.rename_cluster(call.workshop, cluster_id, name, call.actor)
    _follow_names(call.workshop)
    return Outcome(result)


def _follow_names(workshop: Workshop) -> None:
    """Rename the folders of renamed clusters; what cannot be renamed now waits for filing."""
    chosen = workshop.settings.filing
    if workshop.filing and chosen.mode != "none":
        if not workshop.files.acquire(blocking=False):
            return  # the next filing does it
        try:
            rename_folders(
                workshop.db,
                chosen.templates,
                clock=workshop.wall,
                should_stop=lambda: workshop.processes.stopped,
            )
        finally:
            workshop.files.release()


def _switch(decide: Callable[..., dict[str, Any]]) -> Callable[[Call], Outcome]:
    def handle(call: Call) -> Outcome:
        cluster_id, on = int(call.arguments["cluster"]), bool(call.arguments["on"])
        return Outcome(decide(call.workshop, cluster_id, on, call.actor))

    return handle


def _reshape(decide: Callable[..., dict[str, Any]], key: str) -> Callable[[Call], Outcome]:
    def handle(call: Call) -> Outcome:
        cluster_id = int(call.arguments["cluster"])
        others = [int(number) for number in call.arguments[key]]
        return Outcome(decide(call.workshop, cluster_id, others, call.actor))

    return handle


def _prune(call: Call) -> Outcome:
    at_once = bool(call.arguments.get("now", False))
    result = prune(call.workshop, call.progress, explicit=True, at_once=at_once)
    return Outcome(result, 3 if result["skipped"] else 0)


def _restore(call: Call) -> Outcome:
    result = restore(call.workshop, int(call.arguments["frame"]), call.actor)
    return Outcome(result, 3 if result["beside"] else 0)


def _encoder_switch(call: Call) -> Outcome:
    return Outcome(switch_after_all(call.workshop))


def _encoder_forget(call: Call) -> Outcome:
    return Outcome(forget_space(call.workshop, str(call.arguments["space"]), call.progress))


def _repair(call: Call) -> Outcome:
    ignored = frozenset(n.lower().encode() for n in call.workshop.settings.ingest.ignore)
    quick = bool(call.arguments.get("quick", False))
    done, left = repair(call.workshop, ignored, call.progress, quick=quick)
    return Outcome(left | {"repaired": [asdict(one) for one in done]}, 0 if left["ok"] else 1)


HANDLERS: Final[Mapping[str, Callable[[Call], Outcome]]] = {
    "recluster": _recluster,
    "dedup_plan": _dedup_plan,
    "dedup_evaluate": _dedup_evaluate,
    "dedup_apply": _dedup_apply,
    "dedup_discard": _dedup_discard,
    "dedup_keep": _dedup_keep,
    "dedup_apart": _dedup_apart,
    "dedup_keeper": _dedup_keeper,
    "undo": _undo,
    "prune": _prune,
    "restore": _restore,
    "repair": _repair,
    "novel_accept": _novel(decisions.accept_novel),
    "novel_dismiss": _novel(decisions.dismiss_novel),
    "cluster_rename": _rename,
    "cluster_pin": _switch(cluster_decisions.pin_cluster),
    "cluster_ignore": _switch(cluster_decisions.ignore_cluster),
    "cluster_merge": _reshape(cluster_decisions.merge_clusters, "others"),
    "cluster_split": _reshape(split_cluster, "frames"),
    "encoder_switch": _encoder_switch,
    "encoder_forget": _encoder_forget,
}


def handle(call: Call, kind: str) -> Outcome:
    """Run one request; an expected error becomes its JSON and exit code.

    Never raises a StillwatchError; a programming error passes through.
    """
    handler = HANDLERS.get(kind)
    if handler is None:
        error: StillwatchError = UsageError(f"This version cannot do {kind!r}.")
        return Outcome({"error": error.as_json()}, error.exit_code)
    try:
        return handler(call)
    except StillwatchError as exc:
        return Outcome({"error": exc.as_json()}, exc.exit_code)
