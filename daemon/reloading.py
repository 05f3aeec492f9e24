"""The settings read again while the daemon runs: what of them holds at once, what waits.

A file that cannot be used changes nothing, but for one thing: nothing is pruned until it is mended,
for its owner was about to change something, and what it was is not known.
"""

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from daemon.settings import Settings, load_settings
from storage import meta
from storage.engine import Database
from storage.errors import StillwatchError

log = logging.getLogger(__name__)

SETTINGS_KEY: Final = "settings"
"""In `meta`: {at, path, problem, restart}; what the daemon knows of its settings file."""

_LIVE_SECTIONS: Final = frozenset({"clustering", "dedup", "filing", "prune", "backup"})
"""Their jobs look at the settings each time they begin."""
_LIVE: Final = frozenset({"ingest.rescan_seconds", "ingest.full_rescan_seconds"})
_NOT_LIVE: Final = frozenset({"clustering.false_novel_rate"})
"""The judge of arrivals is built with it."""


@dataclass(frozen=True, slots=True)
class Reload:
    """What reading the file again led to.

    `settings`: those in force from now on. `changed`: names that hold at once. `restart`: names
    that hold after a restart only. `problem`: why the file was refused, else None.
    """

    settings: Settings
    changed: list[str] = field(default_factory=list)
    restart: list[str] = field(default_factory=list)
    problem: str | None = None


class SettingsFile:
    """The settings file of a running daemon.

    Args:
        path: The file; it need not be there.
        required: Whether it was named on the command line.
        settings: What the daemon was started with.
        db: Where `status` and `doctor` look for what became of it.
        wall: Seconds since the epoch.
    """

    def __init__(
        self,
        path: Path,
        *,
        required: bool,
        settings: Settings,
        db: Database,
        wall: Callable[[], float],
    ) -> None:
        self._path = path
        self._required = required
        self._started_with = settings
        self._db = db
        self._wall = wall
        self.in_force = settings
        """What holds now."""
        self._note(Reload(settings))

    def reload(self) -> Reload:
        """Read the file again, say what came of it, and note it in the database."""
        reload = self._read()
        self.in_force = reload.settings
        if reload.problem is not None:
            log.error(
                "The settings were not reloaded from %s: %s The old ones stay, and nothing is"
                " pruned until the file is mended.",
                self._path,
                reload.problem,
            )
        else:
            changed = ", ".join(reload.changed) or "nothing"
            log.info("The settings were reloaded from %s; changed: %s.", self._path, changed)
        if reload.restart:
            log.warning("These settings need a restart: %s.", ", ".join(reload.restart))
        try:
            self._note(reload)
        except StillwatchError as exc:
            log.warning("The reload could not be noted: %s", exc.summary)
        return reload

    def _read(self) -> Reload:
        try:
            wanted = load_settings(self._path, required=self._required)
        except StillwatchError as exc:
            halted = self.in_force.prune.model_copy(update={"enabled": False})
            settings = self.in_force.model_copy(update={"prune": halted})
            return Reload(settings, problem=exc.summary)
        settings = _with_live_parts(self._started_with, wanted)
        return Reload(
            settings,
            changed=differences(self.in_force, settings),
            restart=differences(settings, wanted),
        )

    def _note(self, reload: Reload) -> None:
        told = {
            "at": self._wall(),
            "path": os.fspath(self._path),
            "problem": reload.problem,
            "restart": reload.restart,
        }
        with self._db.write() as connection:
            meta.put(connection, SETTINGS_KEY, told)


def differences(one: Settings, other: Settings) -> list[str]:
    """Names of the settings that differ; `camera` for the described cameras as a whole."""
    found = []
    for section in Settings.model_fields:
        old, new = getattr(one, section), getattr(other, section)
        if section == "camera":
            found += ["camera"] if old != new else []
            continue
        names = type(old).model_fields
        found += [f"{section}.{key}" for key in names if getattr(old, key) != getattr(new, key)]
    return found


def _with_live_parts(started_with: Settings, wanted: Settings) -> Settings:
    parts: dict[str, Any] = {}
    for section in Settings.model_fields:
        old, new = getattr(started_with, section), getattr(wanted, section)
        if section != "camera":
            live = {name for name in type(old).model_fields if _is_live(section, name)}
            parts[section] = old.model_copy(update={name: getattr(new, name) for name in live})
    return started_with.model_copy(update=parts)


def _is_live(section: str, name: str) -> bool:
    key = f"{section}.{name}"
    return key in _LIVE or (section in _LIVE_SECTIONS and key not in _NOT_LIVE)
