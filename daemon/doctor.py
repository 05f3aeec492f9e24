"""Examines an installation: each check states one fact and, when it is wrong, one remedy.

Reads only; it creates no database, migrates nothing and takes no lock. Whatever is broken, every
other check still runs: an error inside a check becomes the outcome of that check. What may be
broken itself is imported inside its check.
"""

import json
import os
import shlex
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from daemon.doctor_arrivals import examine_arrivals
from daemon.doctor_decoder import examine_decoder
from daemon.doctor_folders import (
    CameraFolder,
    examine_folder,
    examine_space,
    examine_state_disk,
    examine_watches,
)
from daemon.doctor_program import examine_annoy, examine_program, examine_sqlite
from daemon.findings import Check, guarded
from storage.errors import StillwatchError
from storage.lock import holder

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from daemon.settings import Settings
    from storage.root_guard import GuardedRoot

__all__ = ["Check", "examine"]

_OLDEST_SANE: Final = datetime(2020, 1, 1, tzinfo=UTC).timestamp()
_CLOCK_SLACK_SECONDS: Final = 60.0


def examine(
    state_dir: Path, config: Path | None, *, clock: Callable[[], float] = time.time
) -> list[Check]:
    """Examine this machine, this installation and this state folder.

    Args:
        state_dir: The state folder; may be absent.
        config: The settings file given by the owner, if any.
        clock: Gives the time of day, seconds since the epoch.

    Returns:
        The findings in reading order; never raises.
    """
    doctor = _Doctor(state_dir, config, clock)
    parts: tuple[tuple[str, Callable[[], Iterable[Check]]], ...] = (
        ("program", examine_program),
        ("sqlite", examine_sqlite),
        ("annoy", examine_annoy),
        ("decode_child", examine_decoder),
        ("settings", doctor.check_settings),
        ("settings_in_force", doctor.check_settings_in_force),
        ("encoder", doctor.check_encoder),
        ("lock", doctor.check_lock),
        ("database", doctor.check_database),
        ("index", doctor.check_caches),
        ("journal", doctor.check_journal),
        ("clock", doctor.check_clock),
        ("state_disk", lambda: examine_state_disk(state_dir)),
        ("space:state", lambda: examine_space("state", state_dir)),
        ("cameras", doctor.check_cameras),
        ("arrivals", lambda: examine_arrivals(state_dir)),
    )
    return [check for identifier, part in parts for check in guarded(identifier, part)]


class _Doctor:
    """The checks that depend on the state folder and the settings."""

    def __init__(self, state_dir: Path, config: Path | None, clock: Callable[[], float]) -> None:
        self._state_dir = state_dir
        self._config = config
        self._clock = clock

    def _rows(self, query: str) -> list[Any]:
        """The rows of a query; none where there is no readable database (its own check says so)."""
        from storage.reading import Reader

        try:
            with Reader(self._state_dir) as reader:
                return list(reader.rows(query))
        except StillwatchError:
            return []

    def check_settings(self) -> Iterator[Check]:
        """Whether the settings file, if there is one, can be used."""
        from daemon.settings import default_path, load_settings

        path = self._config or default_path(self._state_dir)
        try:
            load_settings(path, required=self._config is not None)
        except StillwatchError as exc:
            yield Check("settings", "fail", exc.summary, exc.hint or "Mend the settings file.")
            return
        valid = f"The settings file {path} is valid."
        fact = valid if path.exists() else "There is no settings file: the defaults hold."
        yield Check("settings", "ok", fact)

    def check_settings_in_force(self) -> Iterator[Check]:
        """Whether a running daemon works by its settings file; nothing to say where it does."""
        rows = self._rows("SELECT value FROM meta WHERE key = 'settings'")
        if not rows or holder(self._state_dir) is None:
            return
        told = json.loads(rows[0]["value"])
        again = "then `systemctl reload stillwatch` (or send the daemon SIGHUP)."
        if told["problem"]:
            fact = f"The daemon refused the settings when it read them again: {told['problem']}"
            fact += " It works on by the old ones, and prunes nothing."
            yield Check("settings_in_force", "fail", fact, f"Mend {told['path']}, {again}")
        elif told["restart"]:
            names = ", ".join(told["restart"])
            fact = f"The running daemon does not know these changed settings yet: {names}."
            yield Check("settings_in_force", "warn", fact, "Restart the daemon.")

    def _settings(self) -> "Settings":
        """The settings in force; the defaults where they are damaged (their own check says so)."""
        from daemon.settings import Settings, default_path, load_settings

        try:
            return load_settings(self._config or default_path(self._state_dir))
        except StillwatchError:
            return Settings()

    def check_encoder(self) -> Iterator[Check]:
        """Whether the encoder of the settings was prepared."""
        from daemon.encoders.registry import default_cache_dir, is_prepared

        settings = self._settings().encoder
        cache = settings.cache or default_cache_dir()
        try:
            prepared = is_prepared(settings.id, cache)
        except StillwatchError as exc:
            yield Check("encoder", "fail", exc.summary, exc.hint or "See `stillwatch encoders`.")
            return
        if prepared:
            yield Check("encoder", "ok", f"The encoder {settings.id} is prepared in {cache}.")
            return
        state = shlex.quote(str(self._state_dir))
        yield Check(
            "encoder",
            "warn",
            f"The encoder {settings.id} is not prepared in {cache}: the daemon's start does it.",
            f"To do it now: stillwatch --state {state} encoders prepare {settings.id}",
        )

    def check_lock(self) -> Iterator[Check]:
        """Whether a daemon works on this state folder now."""
        pid = holder(self._state_dir)
        if pid is None and _is_hidden(self._state_dir):
            fact = f"Whether a daemon runs cannot be seen: {self._state_dir} may not be read."
            yield Check("lock", "warn", fact, "Ask as the user that runs the daemon.")
            return
        fact = "No daemon is running." if pid is None else f"A daemon is running (process {pid})."
        yield Check("lock", "ok", fact)

    def check_database(self) -> Iterable[Check]:
        """Whether the database can be used, and the way back where it cannot."""
        from daemon.doctor_database import examine_database

        return examine_database(self._state_dir, self._settings().backup.folder, self._clock())

    def check_journal(self) -> Iterator[Check]:
        """Whether file operations were left open by an interruption."""
        rows = self._rows("SELECT count(*) AS n FROM journal WHERE state = 'intent'")
        if not rows:
            return
        count = rows[0]["n"]
        if count == 0:
            yield Check("journal", "ok", "No file operation is open.")
        elif holder(self._state_dir) is not None:
            yield Check("journal", "ok", f"{count} file operations are under way.")
        else:
            yield Check(
                "journal",
                "warn",
                f"{count} file operations were interrupted.",
                "Start the daemon: it finishes or takes back each of them.",
            )

    def check_clock(self) -> Iterator[Check]:
        """Whether the time of day can be true."""
        from storage.uptime import ABSENCE_SECONDS

        now = self._clock()
        rows = self._rows("SELECT max(arrived_at) AS newest FROM frames")
        newest = rows[0]["newest"] if rows else None
        doubt = self._doubt_of_clock(now)
        shown = datetime.fromtimestamp(now, UTC).isoformat(sep=" ", timespec="seconds")
        fix = (
            "Set the clock: `sudo timedatectl set-ntp true` (or `sudo date -s ...`). Until then"
            " nothing is deleted by age."
        )
        if now < _OLDEST_SANE:
            yield Check("clock", "fail", f"The clock says {shown}, which cannot be.", fix)
        elif newest is not None and newest > now + _CLOCK_SLACK_SECONDS:
            fact = (
                f"The clock says {shown}, {_span(newest - now)} before the newest picture arrived:"
                " it is wrong now, or was wrong then."
            )
            yield Check("clock", "fail", fact, fix)
        elif newest is not None and now - newest > ABSENCE_SECONDS:
            fact = (
                f"The clock says {shown}, {_span(now - newest)} after the newest picture arrived:"
                " is it ahead?"
            )
            yield Check("clock", "warn", fact, fix)
        elif doubt is not None:
            yield Check("clock", "warn", f"The clock says {shown}; {doubt}.", fix)
        else:
            yield Check("clock", "ok", f"The clock says {shown}.")

    def _doubt_of_clock(self, now: float) -> str | None:
        from storage.uptime import distrust

        with self._connection() as connection:
            return None if connection is None else distrust(connection, now)

    @contextmanager
    def _connection(self) -> Iterator["Connection | None"]:
        """A read transaction; None where there is no readable database of this version."""
        from storage.engine import Database

        if not self._rows("SELECT 1"):
            yield None
            return
        with ExitStack() as stack:
            database = Database(self._state_dir, read_only=True)
            stack.callback(database.close)
            connection = None
            with suppress(StillwatchError):  # its own check says so
                connection = stack.enter_context(database.read())
            yield connection

    def check_caches(self) -> Iterable[Check]:
        """Whether the caches are as they were written."""
        from daemon.doctor_caches import examine_caches

        return examine_caches(self._state_dir)

    def check_cameras(self) -> Iterator[Check]:
        """The folder of every known camera, the watch limits and the room on their disks."""
        rows = self._rows(
            "SELECT id, name, root, state, state_reason FROM cameras"
            " WHERE state != 'inactive' ORDER BY id"
        )
        if not rows:
            return
        daemon = holder(self._state_dir)
        for row in rows:
            camera = CameraFolder(
                row["name"],
                bytes(row["root"]),
                row["state"],
                row["state_reason"],
                guard=self._guard(row["id"]),
                daemon=daemon,
            )
            yield from guarded(f"folder:{camera.name}", partial(examine_folder, camera))
            space = partial(examine_space, camera.name, camera.folder)
            yield from guarded(f"space:{camera.name}", space)
        roots = [bytes(row["root"]) for row in rows]
        yield from guarded("watches", lambda: examine_watches(roots))

    def _guard(self, camera_id: int) -> "GuardedRoot | None":
        from storage.root_guard import load_root

        with self._connection() as connection:
            return None if connection is None else load_root(connection, camera_id)


def _is_hidden(state_dir: Path) -> bool:
    """Whether this user may not look into the state folder."""
    try:
        return state_dir.is_dir() and not os.access(state_dir, os.R_OK | os.X_OK)
    except OSError:
        return True


def _span(seconds: float) -> str:
    """A stretch of time in the unit that fits."""
    for unit, length in (("days", 86400.0), ("hours", 3600.0)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds / 60:.0f} minutes"
