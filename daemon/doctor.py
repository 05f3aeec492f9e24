"""Examines an installation: each check states one fact and, when it is wrong, one remedy.

Reads only; it creates no database, migrates nothing and takes no lock. Whatever is broken, every
other check still runs: an error inside a check becomes the outcome of that check. What may be
broken itself is imported inside its check.
"""

import platform
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from functools import partial
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from daemon.doctor_folders import (
    CameraFolder,
    examine_folder,
    examine_space,
    examine_state_disk,
    examine_watches,
)
from daemon.findings import Check, guarded
from storage.errors import NoStateError, StillwatchError
from storage.lock import holder

__all__ = ["Check", "examine"]

_OLDEST_SANE: Final = datetime(2020, 1, 1, tzinfo=UTC).timestamp()
_CLOCK_SLACK_SECONDS: Final = 60.0
_CHILD_SECONDS: Final = 30.0


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
        ("program", _program),
        ("sqlite", _sqlite),
        ("annoy", _annoy),
        ("decode_child", _decode_child),
        ("settings", doctor.check_settings),
        ("encoder", doctor.check_encoder),
        ("lock", doctor.check_lock),
        ("database", doctor.check_database),
        ("journal", doctor.check_journal),
        ("clock", doctor.check_clock),
        ("state_disk", lambda: examine_state_disk(state_dir)),
        ("space:state", lambda: examine_space("state", state_dir)),
        ("cameras", doctor.check_cameras),
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

    def check_encoder(self) -> Iterator[Check]:
        """Whether the encoder of the settings was prepared."""
        from daemon.encoders.registry import default_cache_dir, is_prepared
        from daemon.settings import Settings, default_path, load_settings

        try:
            settings = load_settings(self._config or default_path(self._state_dir)).encoder
        except StillwatchError:
            settings = Settings().encoder  # the check of the settings says what is wrong
        cache = settings.cache or default_cache_dir()
        try:
            prepared = is_prepared(settings.id, cache)
        except StillwatchError as exc:
            yield Check("encoder", "fail", exc.summary, exc.hint or "See `stillwatch encoders`.")
            return
        if prepared:
            yield Check("encoder", "ok", f"The encoder {settings.id} is prepared in {cache}.")
        else:
            yield Check(
                "encoder",
                "warn",
                f"The encoder {settings.id} is not prepared in {cache}.",
                f"stillwatch encoders prepare {settings.id}",
            )

    def check_lock(self) -> Iterator[Check]:
        """Whether a daemon works on this state folder now."""
        pid = holder(self._state_dir)
        fact = "No daemon is running." if pid is None else f"A daemon is running (process {pid})."
        yield Check("lock", "ok", fact)

    def check_database(self) -> Iterator[Check]:
        """Whether the database opens, has a known schema and passes SQLite's quick check."""
        from storage.reading import Reader

        try:
            with Reader(self._state_dir) as reader:
                verdict = reader.one("PRAGMA quick_check(1)")[0]
        except NoStateError:
            yield Check(
                "database",
                "warn",
                f"There is no database in {self._state_dir} yet.",
                "`stillwatch run FOLDER` makes it.",
            )
            return
        except StillwatchError as exc:
            yield Check("database", "fail", exc.summary, exc.hint or "Restore a backup.")
            return
        if verdict == "ok":
            yield Check("database", "ok", "The database opens and passes its quick check.")
        else:
            fix = "Keep the file, stop the daemon and restore a backup."
            yield Check("database", "fail", f"The database is damaged: {verdict}", fix)

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
        now = self._clock()
        rows = self._rows("SELECT max(arrived_at) AS newest FROM frames")
        newest = rows[0]["newest"] if rows else None
        shown = datetime.fromtimestamp(now, UTC).isoformat(sep=" ", timespec="seconds")
        fix = "Set the clock: sudo timedatectl set-ntp true"
        if now < _OLDEST_SANE:
            yield Check("clock", "fail", f"The clock says {shown}, which cannot be.", fix)
        elif newest is not None and newest > now + _CLOCK_SLACK_SECONDS:
            hours = (newest - now) / 3600
            fact = f"The clock is {hours:.1f} hours behind the arrival of the newest frame."
            yield Check("clock", "fail", fact, fix)
        else:
            yield Check("clock", "ok", f"The clock says {shown}.")

    def check_cameras(self) -> Iterator[Check]:
        """The folder of every known camera, the watch limits and the room on their disks."""
        rows = self._rows("SELECT name, root, state, state_reason FROM cameras ORDER BY id")
        cameras = [
            CameraFolder(row["name"], bytes(row["root"]), row["state"], row["state_reason"])
            for row in rows
            if row["state"] != "inactive"
        ]
        for camera in cameras:
            yield from guarded(f"folder:{camera.name}", partial(examine_folder, camera))
            space = partial(examine_space, camera.name, camera.folder)
            yield from guarded(f"space:{camera.name}", space)
        if cameras:
            roots = [camera.root for camera in cameras]
            yield from guarded("watches", lambda: examine_watches(roots))


def _program() -> Iterator[Check]:
    version = platform.python_version()
    yield Check("python", "ok", f"Python {version} in {sys.prefix}.")
    import daemon as own

    place = Path(next(iter(own.__path__)))
    if not (place / "messages.py").is_file():
        yield Check(
            "program",
            "fail",
            f"Another package took the name `daemon`: {place}.",
            "Give stillwatch an environment of its own: `make install`.",
        )
        return
    try:
        yield Check(
            "program", "ok", f"stillwatch {metadata.version('stillwatch')} in {place.parent}."
        )
    except metadata.PackageNotFoundError:
        fact = f"stillwatch runs from {place.parent} without being installed."
        yield Check("program", "warn", fact, "`make install` installs it.")


def _sqlite() -> Iterator[Check]:
    from storage.engine import sqlite_driver, wal_is_safe

    version = sqlite_driver().sqlite_version
    if wal_is_safe():
        yield Check("sqlite", "ok", f"SQLite {version} is safe for many readers at once.")
    else:
        yield Check(
            "sqlite",
            "warn",
            f"SQLite {version} has the WAL-reset bug, so a slower journal is used.",
            "Install pysqlite3 0.6.1 or newer into this environment.",
        )


def _annoy() -> Iterator[Check]:
    fix = "Install a C++ compiler, then run `make install` again."
    if find_spec("annoy") is None:
        yield Check("annoy", "warn", "annoy is not installed; `similar` asks FAISS instead.", fix)
        return
    # In a child: a copy built for another processor does not raise, it kills the process.
    verdict = _run_child(["-c", "import annoy; annoy.AnnoyIndex(2, 'angular')"])
    if verdict == 0:
        yield Check("annoy", "ok", "annoy can be used.")
    else:
        yield Check("annoy", "warn", f"annoy cannot be used here (exit code {verdict}).", fix)


def _decode_child() -> Iterator[Check]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.shutdown(socket.SHUT_WR)  # the end of the work: the child shall say nothing and end
        arguments = ["-m", "daemon.ingest.decode_child", str(theirs.fileno()), "2048"]
        verdict = _run_child(arguments, pass_fds=(theirs.fileno(),))
    if verdict == 0:
        yield Check("decode_child", "ok", "The decoding process starts.")
    else:
        yield Check(
            "decode_child",
            "fail",
            f"The decoding process does not start (exit code {verdict}).",
            "Install stillwatch again: `make install`.",
        )


def _run_child(arguments: list[str], *, pass_fds: tuple[int, ...] = ()) -> int:
    finished = subprocess.run(
        [sys.executable, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        timeout=_CHILD_SECONDS,
        pass_fds=pass_fds,
        check=False,
    )
    return finished.returncode
