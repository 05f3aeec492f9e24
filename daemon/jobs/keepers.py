"""Choosing the keepers of runs that have ended, in the plan and not in the judge.

The judge stays a pure function of frames in order; what is chosen here is noted on the keeper's
row (`run_settled`) and not opened again. The comparing is done in a process of its own.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection

from daemon.jobs.child import Progress
from daemon.jobs.limits import camera_limit
from daemon.jobs.signatures import signature_parameters
from daemon.jobs.workshop import Workshop
from storage import duplicate_runs, frames, meta
from storage.cameras import CameraRow
from storage.dedup import LIVE_KEY, keepers_of, kept_frames
from storage.signatures import here


def settle(workshop: Workshop, camera: CameraRow, progress: Progress, *, at_once: bool) -> None:
    """Choose the keepers of a camera's runs that no later frame can join.

    Args:
        workshop: What the job works with; the caller holds `files`.
        camera: The camera, of kind fixed.
        progress: Told the runs looked at.
        at_once: All runs have ended: nobody waits for more frames.

    Raises:
        JobFailedError: The process failed; nothing is settled.
        JobStoppedError: The daemon stops; likewise.
    """
    with workshop.db.write() as connection:
        duplicate_runs.break_chains(connection, camera.id)
        heirs = duplicate_runs.waiting_for_heirs(connection, camera.id)
        live = [] if at_once else meta.get(connection, f"{LIVE_KEY}:{camera.id}", [])
        unsettled = duplicate_runs.has_unsettled(connection, camera.id, set(live))
    if unsettled or heirs:
        answer = ask_child(workshop, camera, {"live": live, "heirs": heirs}, progress)
        with workshop.db.write() as connection:
            _write_heirs(connection, answer["heirs"])
            duplicate_runs.put_heirs(connection, camera.id, [])
            for run in answer["runs"]:
                _write_run(connection, run)


def ask_child(
    workshop: Workshop, camera: CameraRow, wanted: Mapping[str, Any], progress: Progress
) -> dict[str, Any]:
    """Have `daemon.jobs.keeper_child` compare frames of a camera.

    Args:
        workshop: What the job works with.
        camera: The camera.
        wanted: {"live": frames, "heirs": pairs} for all runs but those of live keepers, and for
            (frame, new keeper) pairs; {"keeper": frame, "group": frames} for one keeper.
        progress: Told the runs looked at.

    Raises:
        JobFailedError, JobStoppedError: No answer.
    """
    settings = workshop.settings
    with workshop.db.read() as connection:
        limits = [
            camera_limit(connection, settings, camera, tile_map=there) for there in (True, False)
        ]
    parameters = {
        "state_dir": str(workshop.state_dir),
        "signatures": signature_parameters(workshop),
        "camera": camera.id,
        "policy": settings.dedup.keeper,
        "limits": limits,
        **wanted,
    }
    with workshop.processes.run("daemon.jobs.keeper_child", parameters, progress) as path:
        answer: dict[str, Any] = json.loads(path.read_text())
    return answer


def write_verdict(connection: Connection, verdict: Mapping[str, Any]) -> None:
    """Store one verdict of the process: redundant against `keeper`, or kept where that is None."""
    frames.update_frame(
        connection,
        verdict["frame"],
        duplicate_kind=None if verdict["keeper"] is None else "near",
        duplicate_of=verdict["keeper"],
        change_score=verdict["score"],
        change_tile=verdict["tile"],
        reason=verdict["reason"],
    )


def _write_heirs(connection: Connection, verdicts: Sequence[Mapping[str, Any]]) -> None:
    """Write the comparisons with new keepers, of frames and keepers that are kept still."""
    owners = [verdict["keeper"] for verdict in verdicts if verdict["keeper"] is not None]
    kept = set(kept_frames(connection, [*owners, *(verdict["frame"] for verdict in verdicts)]))
    for verdict in verdicts:
        if {verdict["frame"], verdict["keeper"] or verdict["frame"]} <= kept:
            write_verdict(connection, verdict)


def _write_run(connection: Connection, run: Mapping[str, Any]) -> None:
    """Write one choice; one whose frames left meanwhile waits for the next plan."""
    first, keeper, last = run["first"], run["keeper"], run["last"]
    verdicts: Sequence[Mapping[str, Any]] = run["removed"]
    involved = {first, keeper, *(verdict["frame"] for verdict in verdicts)} | {last or first}
    current = keepers_of(connection, sorted(involved - {first}))
    if len(here(connection, sorted(involved))) < len(involved):
        return
    if any(owner != first for owner in current.values()) or len(current) < len(involved) - 1:
        return
    if last is not None:
        _keep(connection, last, run["last_reason"])
    if keeper != first:
        _keep(connection, keeper, run["reason"])
        for verdict in verdicts:
            write_verdict(connection, verdict)
    kept = {keeper, first} | ({last} if last is not None else set())
    duplicate_runs.settle(connection, sorted(kept))


def _keep(connection: Connection, frame_id: int, reason: str) -> None:
    frames.update_frame(connection, frame_id, duplicate_kind=None, duplicate_of=None, reason=reason)
