"""What `stillwatch run` was asked for, and what follows from it before anything is opened."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from daemon.settings import Settings, default_path, load_settings
from storage.errors import FolderError
from storage.modes import make_private_folder

Report = Callable[[str], None]
"""Takes a plain line for the owner."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """What `stillwatch run` was asked for."""

    folders: tuple[Path, ...]
    state_dir: Path
    config: Path | None = None
    once: bool = False
    file: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """The two clocks: `wall` for records, `monotonic` for waits, both in seconds."""

    wall: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic


def load_run_settings(options: RunOptions) -> Settings:
    """The settings of a run.

    Raises:
        SettingsError: They cannot be used, or the named file is absent.
    """
    return load_settings(settings_path(options), required=options.config is not None)


def settings_path(options: RunOptions) -> Path:
    """Its settings file; it need not be there."""
    return options.config or default_path(options.state_dir)


def make_state_dir(state_dir: Path) -> None:
    """Make the state folder if it is absent.

    Raises:
        FolderError: It cannot be made, or not be written.
    """
    try:
        make_private_folder(state_dir)
    except OSError as exc:
        raise FolderError(
            f"The state folder cannot be made: {os.strerror(exc.errno or 0)}.",
            hint="Choose another one with --state.",
            path=str(state_dir),
        ) from exc
    if not os.access(state_dir, os.W_OK | os.X_OK):
        raise FolderError(
            f"There is no permission to write the state folder {state_dir}.",
            hint="Choose another one with --state.",
            path=str(state_dir),
        )
