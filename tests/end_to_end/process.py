"""The real daemon as a process of its own, and what the end-to-end tests do with it.

Nothing here sleeps blindly: `wait_until` asks again and again until a condition holds, and fails
with what it waited for when the deadline has passed or the daemon has died.
"""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from daemon.demo.render import render_jpeg
from storage.listing import frames
from storage.lock import holder
from storage.overview import status
from storage.reading import Reader

ROOT = Path(__file__).parents[2]
POLL_SECONDS = 0.05
PATIENCE_SECONDS = 90.0
QUICK = {"ingest": {"settle_seconds": 0.2, "decode_children": 2}}
"""Settings of most tests: files settle soon."""

_OVERRIDES = "-dac_override,-dac_read_search"
WITHOUT_OVERRIDE = (
    ("setpriv", f"--inh-caps={_OVERRIDES}", f"--bounding-set={_OVERRIDES}")
    if os.geteuid() == 0
    else ()
)
"""Runs a command so that the mode bits of files hold for it, also where the tests are root.

Another user id would not do: it may not even reach the interpreter of this installation.
"""

Row = dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """What a command printed, and how it ended."""

    code: int
    out: str
    err: str
    seconds: float

    def json(self) -> Any:
        return json.loads(self.out)

    def json_lines(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]


@dataclass
class Site:
    """A picture folder, a state folder and a settings file, and commands on them."""

    base: Path
    settings: Mapping[str, Mapping[str, object]] = field(default_factory=lambda: QUICK)
    prefix: Sequence[str] = ()
    """Put before every command, such as `setpriv ...`."""

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.write_settings(self.settings)

    def bound_by_modes(self) -> "Site":
        """The same place for a user whom the mode bits of files stop."""
        return replace(self, prefix=WITHOUT_OVERRIDE)

    @property
    def folder(self) -> Path:
        return self.base / "yard"

    @property
    def state(self) -> Path:
        return self.base / "state"

    @property
    def config(self) -> Path:
        return self.base / "settings.toml"

    def write_settings(self, settings: Mapping[str, Mapping[str, object]]) -> None:
        lines: list[str] = []
        for table, values in settings.items():
            lines.append(f"[{table}]")
            lines.extend(f"{name} = {json.dumps(value)}" for name, value in values.items())
        self.config.write_text("\n".join(lines) + "\n")

    def command(self, *arguments: str | os.PathLike[str]) -> list[str]:
        options = ("--state", str(self.state), "--config", str(self.config))
        program = [sys.executable, "-m", "cli.main", *options]
        return [*self.prefix, *program, *(os.fspath(part) for part in arguments)]

    def cli(self, *arguments: str | os.PathLike[str], timeout: float = 120) -> Answer:
        """Run one command to its end; a traceback or a bug report in its output is a failure."""
        start = time.monotonic()
        done = subprocess.run(
            self.command(*arguments),
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=timeout,
            stdin=subprocess.DEVNULL,
        )
        told = done.stdout + done.stderr
        assert "Traceback" not in told, told
        assert "This is a bug" not in told, told
        return Answer(done.returncode, done.stdout, done.stderr, time.monotonic() - start)

    def once(self, *arguments: str) -> Row:
        """`run --once --json`, which must end with 0; the status object."""
        done = self.cli("run", "--once", "--json", *arguments, self.folder)
        assert done.code == 0, done.err
        found: Row = done.json()
        return found

    @contextmanager
    def daemon(
        self,
        *arguments: str,
        environment: Mapping[str, str] | None = None,
        folders: Sequence[Path] | None = None,
    ) -> Iterator["Daemon"]:
        """A running daemon, ready to take files; it must end cleanly unless it was killed."""
        running = Daemon(self, arguments, environment or {}, folders or (self.folder,))
        try:
            running.wait_until_ready()
            yield running
            running.stop()
        finally:
            running.kill()

    def rows(self) -> list[Row]:
        """The objects of `frames --json`, all of them."""
        with Reader(self.state) as reader:
            return list(frames(reader))

    def by_path(self) -> dict[str, Row]:
        """Rows of files on disk by where they are now."""
        return {
            row["path"]: row for row in self.rows() if row["state"] not in ("missing", "pruned")
        }

    def status(self) -> Row:
        """The `status` object."""
        with Reader(self.state) as reader:
            return status(reader, running=holder(self.state) is not None)

    def table(self, sql: str) -> list[tuple[Any, ...]]:
        """The rows of any question to the database."""
        with Reader(self.state) as reader:
            return [tuple(row) for row in reader.rows(sql)]

    def runs(self, kind: str) -> list[str]:
        """Ids of the runs of a kind, oldest first."""
        return [f"r{n}" for (n,) in self.table(f"SELECT id FROM runs WHERE kind = '{kind}'")]

    def verify(self) -> None:
        """`stillwatch verify` must say ok."""
        done = self.cli("verify", "--json")
        assert done.code == 0, done.out
        assert done.json()["ok"] is True


class Daemon:
    """One process of `stillwatch run`."""

    def __init__(
        self,
        site: Site,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        folders: Sequence[Path],
    ) -> None:
        self._site = site
        self._log = site.base / "daemon.log"
        with self._log.open("ab") as log:
            self._said_before = log.tell()
            self.process = subprocess.Popen(
                site.command("run", *arguments, *folders),
                cwd=ROOT,
                env=dict(os.environ) | dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    @property
    def said(self) -> str:
        """Everything that this process wrote."""
        with self._log.open("rb") as log:
            log.seek(self._said_before)
            return log.read().decode(errors="replace")

    def wait_until_ready(self) -> None:
        """Until the line that it says when everything is started."""
        self.wait_until(lambda: "filing is o" in self.said, "the daemon is ready")

    def wait_until(
        self, condition: Callable[[], object], what: str, seconds: float = PATIENCE_SECONDS
    ) -> None:
        """As `wait_until`, and fails at once when the daemon has died."""

        def holds() -> object:
            if self.process.poll() is not None and not condition():
                raise AssertionError(f"the daemon ended while waiting until {what}: {self.said}")
            return condition()

        wait_until(holds, what, seconds, lambda: self.said[-2000:])

    def stop(self, number: int = signal.SIGTERM, seconds: float = 60) -> None:
        """Ask it to drain; it must end with 0 and without a traceback."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        elif self.process.returncode == -signal.SIGKILL:
            return
        code = self.process.wait(timeout=seconds)
        assert code == 0, f"ended with {code}: {self.said}"
        assert "Traceback" not in self.said, self.said

    def kill(self) -> None:
        """SIGKILL, and wait for its end."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


def wait_until(
    condition: Callable[[], object],
    what: str,
    seconds: float = PATIENCE_SECONDS,
    tell: Callable[[], object] = lambda: "",
) -> None:
    """Ask until the condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:g} s: {what} {tell()}")
        time.sleep(POLL_SECONDS)


def reached(count: Callable[[], int], goal: int) -> Callable[[], bool]:
    """Whether a number has grown so far."""
    return lambda: count() >= goal


def decided(site: Site, count: int) -> Callable[[], bool]:
    """Whether so many rows are there and none of them is pending."""

    def holds() -> bool:
        found = site.status()["frames"]
        return bool(found["total"] >= count and found["pending"] == 0)

    return holds


def picture(number: int, size: tuple[int, int] = (64, 48)) -> bytes:
    """A small JPEG that no other number gives: a soft pattern of its own."""
    rng = np.random.default_rng((11, number))
    coarse = rng.integers(0, 255, (6, 8, 3), dtype=np.uint8)
    done, data = cv2.imencode(".jpg", cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC))
    assert done
    return bytes(data)


@cache
def yard(index: int) -> bytes:
    """A frame of the simulated camera: neighbours look alike, and most are near-duplicates."""
    return render_jpeg(index, 7)


def fill(folder: Path, pictures: Mapping[str, bytes]) -> None:
    """Write files, and the folders that they need."""
    for name, data in pictures.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def facts(folder: Path) -> dict[str, tuple[str, int, int]]:
    """Name below the folder -> digest, mtime_ns and mode of every file that is not ours alone."""
    return {
        path.relative_to(folder).as_posix(): (
            sha256(path.read_bytes()),
            path.stat().st_mtime_ns,
            path.stat().st_mode,
        )
        for path in files(folder)
        if not path.name.startswith(".stillwatch")
    }


def files(folder: Path) -> Iterable[Path]:
    return (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
