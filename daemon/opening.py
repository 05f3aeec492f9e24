"""From what was asked for to an open state folder: all that must hold before a stage is built.

The order counts: settings and folders are checked before anything is made, the lock comes before
the database, and moves that a kill left unfinished are settled before anybody reads the folders.
"""

import os
from contextlib import ExitStack
from dataclasses import dataclass

from daemon.cameras import ChosenCamera, choose_cameras, hold_roots, register
from daemon.reloading import SettingsFile
from daemon.restoring import reconcile_if_due
from daemon.room import Room
from daemon.run_options import (
    Clock,
    Report,
    RunOptions,
    load_run_settings,
    make_state_dir,
    settings_path,
)
from daemon.serving_encoder import ServingEncoder
from daemon.settings import Settings
from storage import cameras, meta, requests
from storage.cameras import CameraRow
from storage.engine import Database
from storage.file_gate import HALTED_KEY
from storage.journal import recover
from storage.lock import StateLock
from storage.modes import tighten
from storage.root_guard import load_roots


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenState:
    """An open state folder, and what this run found out about it."""

    settings: Settings
    filing: bool
    """Whether frames are filed without being asked (`--file`, `filing.enabled`)."""
    db: Database
    room: Room
    settings_file: SettingsFile
    rows: list[CameraRow]
    """The cameras of this run."""
    patterns: dict[int, str | None]
    """By camera: how its file names tell the time of capture."""
    encoder: ServingEncoder


def open_state(options: RunOptions, report: Report, clock: Clock, stack: ExitStack) -> OpenState:
    """Check, lock and open everything, note the cameras and this daemon, settle what was left.

    Args:
        options: What was asked for.
        report: Takes plain lines for the owner.
        clock: Both clocks.
        stack: Closes what was opened, in reverse order, also where this fails half-way.

    Raises:
        StillwatchError: It cannot start (exit code in the error).
    """
    started_at = clock.wall()
    settings = load_run_settings(options)
    filing = options.file or settings.filing.enabled
    chosen = choose_cameras(options.folders, settings, options.state_dir)
    make_state_dir(options.state_dir)
    stack.enter_context(StateLock(options.state_dir))
    db = Database(options.state_dir)
    stack.callback(db.close)
    tighten(options.state_dir)
    room = Room(options.state_dir, patient=not options.once, monotonic=clock.monotonic)
    settings_file = _note_settings(options, settings, db, clock)
    ids = _note_start(db, settings, chosen, clock, started_at)
    rows = _settle(db, settings, ids, clock, filing=filing)
    encoder = ServingEncoder(db, settings.encoder, clock.wall, report)
    stack.callback(encoder.close)
    return OpenState(
        settings=settings,
        filing=filing,
        db=db,
        room=room,
        settings_file=settings_file,
        rows=rows,
        patterns={i: c.pattern for i, c in zip(ids, chosen, strict=True)},
        encoder=encoder,
    )


def _note_settings(
    options: RunOptions, settings: Settings, db: Database, clock: Clock
) -> SettingsFile:
    """The file that a reload reads again; what it says now is noted as in force."""
    return SettingsFile(
        settings_path(options),
        required=options.config is not None,
        settings=settings,
        db=db,
        wall=clock.wall,
    )


def _note_start(
    db: Database,
    settings: Settings,
    chosen: list[ChosenCamera],
    clock: Clock,
    started_at: float,
) -> list[int]:
    """Note in one transaction which cameras and which daemon are at work; ids of the cameras.

    Requests that an earlier daemon had begun have failed; what was asked since `started_at` waits.
    """
    with db.write() as connection:
        ids = [register(connection, camera, clock.wall()) for camera in chosen]
        cameras.set_others_inactive(connection, ids)
        requests.fail_interrupted(connection, clock.wall(), asked_before=started_at)
        rate = settings.clustering.false_novel_rate
        meta.put(connection, "false_novel_rate", rate)
        meta.put(connection, "daemon", {"pid": os.getpid(), "started_at": clock.wall()})
        meta.put(connection, HALTED_KEY, None)
    return ids


def _settle(
    db: Database, settings: Settings, ids: list[int], clock: Clock, *, filing: bool
) -> list[CameraRow]:
    """Hold the folders that are filed in, and finish or undo what a kill or a restore left.

    Returns:
        The rows of the cameras, as they were before.
    """
    with db.read() as connection:
        roots = load_roots(connection)
        rows = {row.id: row for row in cameras.list_cameras(connection)}
    if filing or settings.prune.enabled:
        hold_roots(db, [roots[camera_id] for camera_id in ids])
    recover(db, roots, clock.wall(), at_start=True)
    reconcile_if_due(db, settings, clock.wall())
    return [rows[camera_id] for camera_id in ids]
