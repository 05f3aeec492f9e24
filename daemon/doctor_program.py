"""The doctor's checks of the installation: Python, the program itself, SQLite, annoy."""

import platform
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from daemon.findings import Check

_CHILD_SECONDS: Final = 30.0


def examine_program() -> Iterator[Check]:
    """Python, and whether it is this program that answers to its names."""
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


def examine_sqlite() -> Iterator[Check]:
    """Whether this SQLite is free of the WAL-reset bug."""
    from storage.database_file import sqlite_driver, wal_is_safe

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


def examine_annoy() -> Iterator[Check]:
    """Whether annoy can be used."""
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


def _run_child(arguments: list[str]) -> int:
    finished = subprocess.run(
        [sys.executable, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        timeout=_CHILD_SECONDS,
        check=False,
    )
    return finished.returncode
