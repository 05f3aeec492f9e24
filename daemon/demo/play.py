"""The demo: a simulated camera, the real daemon beside it, and plain lines for an onlooker."""

import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from daemon.demo.camera import SimulatedCamera
from daemon.demo.facts import EVENTS, Onlooker
from storage.database_file import DATABASE_NAME
from storage.errors import FolderError
from storage.lock import holder
from storage.modes import make_private_folder

Report = Callable[[str], None]
"""Takes one plain line."""

SETTINGS: Final = """\
# Settings of the demo: everything happens sooner than beside a real camera.
[ingest]
settle_seconds = 0.5

[clustering]
first_at_frames = 100
growth_share = 0.5

[dedup]
every_seconds = 20
delay_seconds = 5

[filing]
enabled = true
brake_share = 1.0
"""
"""What the demo's daemon runs with when no settings file is given."""

_START_SECONDS: Final = 120.0
_STOP_SECONDS: Final = 90.0
_LOOK_SECONDS: Final = 0.5


@dataclass(frozen=True, slots=True)
class _Stage:
    """Where a demo plays."""

    state_dir: Path
    folder: Path
    config: Path

    @property
    def log(self) -> Path:
        """What the daemon says."""
        return self.state_dir / "daemon.log"


def run_demo(
    state_dir: Path,
    folder: Path | None,
    config: Path | None,
    *,
    seconds: float | None,
    report: Report,
) -> int:
    """Play the demo until `seconds` are over, or until SIGINT or SIGTERM.

    Args:
        state_dir: State folder; where it has a database already, `NAME-2`, `NAME-3` … beside it.
        folder: An empty folder for the pictures; default: `pictures` in the state folder.
        config: Settings for the daemon; default: `SETTINGS`.
        seconds: How long it plays; None plays on.
        report: Receives every line.

    Returns:
        0, or 1 when the daemon did not start or did not end by itself.

    Raises:
        FolderError: `folder` holds something already.
    """
    stage = _set_up(state_dir, folder, config)
    report(f"A simulated camera writes into {stage.folder}; Ctrl-C ends the demo.")
    stop = threading.Event()
    with _stopped_by_signals(stop):
        daemon = _start_daemon(stage)
        try:
            ended_well = _play(stage, daemon, stop, seconds, report)
        finally:
            clean = _end(daemon)
    if not clean:
        report(f"The daemon did not end cleanly; its last words stand in {stage.log}.")
    return 0 if ended_well and clean else 1


def _set_up(state_dir: Path, folder: Path | None, config: Path | None) -> _Stage:
    if folder is not None and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FolderError(
            f"The demo needs an empty folder, and {folder} is not.",
            hint="Name another one, or none: then it makes its own.",
            path=str(folder),
        )
    state = state_dir
    number = 1
    while (state / DATABASE_NAME).exists():
        number += 1
        state = state_dir.with_name(f"{state_dir.name}-{number}")
    make_private_folder(state)
    pictures = (folder or state / "pictures").absolute()
    pictures.mkdir(parents=True, exist_ok=True)
    settings = config
    if settings is None:
        settings = state / "stillwatch.toml"
        settings.write_text(SETTINGS, encoding="utf-8")
    return _Stage(state.absolute(), pictures, settings.absolute())


def _start_daemon(stage: _Stage) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "cli.main", *_options(stage), "run", "--file"]
    with stage.log.open("ab") as log:
        return subprocess.Popen(
            [*command, str(stage.folder)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            # Ctrl-C is for the demo: it stops the camera first, then the daemon.
            start_new_session=True,
        )


def _options(stage: _Stage) -> list[str]:
    return ["--state", str(stage.state_dir), "--config", str(stage.config)]


def _play(
    stage: _Stage,
    daemon: "subprocess.Popen[bytes]",
    stop: threading.Event,
    seconds: float | None,
    report: Report,
) -> bool:
    """Everything between the daemon's start and its end; False when it died on its own."""
    if not _wait_for_lock(stage, daemon, stop):
        if stop.is_set():
            return True
        report(f"The daemon did not start: {_last_words(stage.log)}")
        return False
    camera = SimulatedCamera(stage.folder)
    onlooker = Onlooker(stage.state_dir)
    start = time.monotonic()
    player = threading.Thread(target=camera.play, args=(stop,), name="camera", daemon=True)
    player.start()
    try:
        while daemon.poll() is None and not stop.wait(_LOOK_SECONDS):
            elapsed = time.monotonic() - start
            for line in onlooker.look():
                report(f"{elapsed:4.0f} s  {line}")
            if seconds is not None and elapsed >= seconds:
                break
    finally:
        stop.set()
        player.join()
    if daemon.poll() is not None:
        report(f"The daemon ended on its own: {_last_words(stage.log)}")
        return False
    _farewell(stage, camera, onlooker, report)
    return True


def _wait_for_lock(stage: _Stage, daemon: "subprocess.Popen[bytes]", stop: threading.Event) -> bool:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and daemon.poll() is None:
        if holder(stage.state_dir) is not None:
            return True
        if stop.wait(0.1):
            return False
    return False


def _farewell(stage: _Stage, camera: SimulatedCamera, onlooker: Onlooker, report: Report) -> None:
    for line in onlooker.look():
        report(f"  end   {line}")
    missed = [event for event in EVENTS if event not in onlooker.seen]
    if missed:
        report(f"Not seen this time, it ended too early: {', '.join(missed)}.")
    report(f"The camera delivered {camera.delivered} files; they lie in {stage.folder}.")
    report("Now try, for instance:")
    state = f"stillwatch --state {shlex.quote(str(stage.state_dir))}"
    for command in ("status", "clusters", "novel", "dedup plan", "runs", "verify"):
        report(f"  {state} {command}")


def _end(daemon: "subprocess.Popen[bytes]") -> bool:
    """Ask the daemon to drain and stop; kill it only when it hangs. True after a clean end."""
    if daemon.poll() is None:
        daemon.terminate()
    try:
        return daemon.wait(timeout=_STOP_SECONDS) == 0
    except subprocess.TimeoutExpired:
        daemon.kill()
        daemon.wait()
        return False


def _last_words(log: Path) -> str:
    """The last two lines that the daemon wrote: what failed, and the hint."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    told = [line.strip() for line in lines if line.strip()]
    return " ".join(told[-2:]) or "it said nothing"


@contextmanager
def _stopped_by_signals(stop: threading.Event) -> Iterator[None]:
    """SIGINT and SIGTERM set `stop`; only a main thread may listen, others leave them alone."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    wanted = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda *_: stop.set()) for number in wanted]
    try:
        yield
    finally:
        for number, handler in zip(wanted, before, strict=True):
            signal.signal(number, handler)
