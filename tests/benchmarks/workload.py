"""What the benchmark works with: pictures of real cameras, settings, the daemon's process."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from storage.database_file import DATABASE_NAME, sqlite_driver

CAMERA_PREFIXES: Final = ("fixedcam_", "timelapse_", "cameratrap_", "dashcam_")
NO_CAMERA: Final = "odd"
"""The folder of broken and exotic files: measured by tests, not here."""
SEED: Final = 20_240
POLL_SECONDS: Final = 0.02
DEADLINE_SECONDS: Final = 900.0
STEADY_SETTINGS: Final[Mapping[str, Mapping[str, Any]]] = {
    "cameras": {"by_subfolder": True},
    "clustering": {"first_at_frames": 10_000_000, "first_after_seconds": 1e7},
    "dedup": {"every_seconds": 1e7},
}
"""Each subfolder a camera, and no job beside the ingest."""


def copy_pictures(dev: Path, target: Path, count: int, *, cameras_only: bool) -> list[Path]:
    """A fixed choice of the JPEG files of DEV, copied with their subfolders.

    Waits until the copies are older than the default `settle_seconds`, so that settling is out
    of the measurement.
    """
    folders = [
        folder
        for folder in sorted(dev.iterdir())
        if folder.is_dir()
        and folder.name != NO_CAMERA
        and (folder.name.startswith(CAMERA_PREFIXES) or not cameras_only)
    ]
    files = sorted(
        path for folder in folders for path in folder.rglob("*") if path.suffix.lower() == ".jpg"
    )
    if len(files) < count:
        raise SystemExit(f"{dev} has {len(files)} JPEG files, {count} are needed")
    copies = []
    for path in random.Random(SEED).sample(files, count):
        copy = target / path.relative_to(dev)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
        copies.append(copy)
    newest = max(copy.stat().st_ctime for copy in copies)
    wait_until(lambda: time.time() > newest + 2.5, "the copies are settled")
    return copies


def write_settings(state: Path, settings: Mapping[str, Mapping[str, Any]]) -> None:
    """A settings file in a fresh state folder."""
    state.mkdir(parents=True)
    lines = []
    for section, values in settings.items():
        lines.append(f"[{section}]")
        for key, value in values.items():
            shown = str(value).lower() if isinstance(value, bool) else repr(value)
            lines.append(f"{key} = {shown}")
    (state / "stillwatch.toml").write_text("\n".join(lines) + "\n")


def wait_until(condition: Callable[[], bool], what: str, seconds: float = DEADLINE_SECONDS) -> None:
    """Ask again and again until it holds; gives up with a plain line."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"waited {seconds:g} s in vain until {what}")
        time.sleep(POLL_SECONDS)


class Onlooker:
    """Reads a state folder's database from outside, as any other program would."""

    def __init__(self, state: Path) -> None:
        wait_until((state / DATABASE_NAME).exists, "the database is there", 60)
        self._driver = sqlite_driver()
        uri = f"file:{state / DATABASE_NAME}?mode=ro"
        self._connection = self._driver.connect(uri, uri=True, timeout=30)

    def rows(self, sql: str, parameters: tuple[object, ...] = ()) -> list[tuple[Any, ...]]:
        """All rows of a query; none while the schema is still being made."""
        try:
            found: list[tuple[Any, ...]] = self._connection.execute(sql, parameters).fetchall()
        except self._driver.OperationalError:
            return []
        return found

    def all_recorded(self, count: int) -> bool:
        """Whether that many rows are there and none is pending."""
        rows = self.rows("SELECT count(*), sum(state = 'pending') FROM frames")
        return bool(rows) and rows[0] == (count, 0)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


@dataclass(frozen=True, slots=True)
class Usage:
    """CPU seconds since its start and memory in MB of one process."""

    cpu: float
    rss: float
    peak: float


def usage(pid: int) -> Usage:
    """From /proc."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    ticks = os.sysconf("SC_CLK_TCK")
    sizes = {
        line.split(":")[0]: int(line.split()[1]) / 1024
        for line in Path(f"/proc/{pid}/status").read_text().splitlines()
        if line.startswith(("VmRSS", "VmHWM"))
    }
    return Usage((int(fields[11]) + int(fields[12])) / ticks, sizes["VmRSS"], sizes["VmHWM"])


def children_of(pid: int) -> list[int]:
    """Process ids of the direct children."""
    found: list[int] = []
    for thread in Path(f"/proc/{pid}/task").iterdir():
        found.extend(int(child) for child in (thread / "children").read_text().split())
    return found


class Daemon:
    """`stillwatch run FOLDER` as a process of its own, stopped by SIGTERM at the end."""

    def __init__(self, state: Path, folder: Path, *options: str) -> None:
        self._log = (state / "benchmark.log").open("wb")
        command = [sys.executable, "-m", "cli.main", "--state", str(state), "--json"]
        self.process = subprocess.Popen(
            [*command, "run", str(folder), *options], stdout=subprocess.PIPE, stderr=self._log
        )
        self.pid = self.process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(timeout=60)
        if self.process.stdout is not None:
            self.process.stdout.close()
        self._log.close()
        if code != 0 and kind is None:
            raise SystemExit(f"the daemon ended with {code}")
