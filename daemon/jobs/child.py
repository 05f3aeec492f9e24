"""Running a job's heavy part in a process of its own: low priority, killable, leaves no trace.

The child is `python -m daemon.jobs.<name>_child`, gets its parameters as JSON on stdin, writes
its result to a file and its progress as JSON lines to stdout.
"""

import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final

from storage.errors import StillwatchError
from storage.modes import make_private_folder

Progress = Callable[[str, int, int], None]
"""Called with stage, done, total."""

NICE = 10
"""Steps below the daemon's priority, which the service manager may have lowered already."""


PR_SET_PDEATHSIG: Final = 1
"""prctl(2): the signal that a process gets when the one that started it ends."""
JOBS_FOLDER: Final = "jobs"
"""Below the state folder: what running jobs keep on disk; nothing there outlives its job."""
PARENT: Final = "STILLWATCH_JOB_PARENT"
"""Environment variable: process id of the one that started a job's process."""


class JobFailedError(StillwatchError):
    """The process of a job ended without a result; the state before it stands."""

    code = "job_failed"


class JobStoppedError(StillwatchError):
    """The daemon stops, and with it the job; the state before it stands."""

    code = "job_stopped"

    def __init__(self) -> None:
        super().__init__("The job was stopped together with the daemon.", hint="Run it again.")


class JobProcesses:
    """The processes of the jobs of one state folder: where they work, and their end.

    Args:
        state_dir: The state folder; whoever makes this holds its lock.
    """

    def __init__(self, state_dir: Path) -> None:
        self.folder: Final = state_dir / JOBS_FOLDER
        self._running: set[subprocess.Popen[str]] = set()
        self._lock = threading.Lock()
        self._stopped = False

    def clear_leftovers(self) -> None:
        """Remove what jobs that were killed left on disk; call before the first job."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def stop(self) -> None:
        """Kill the processes that run, start no other; their jobs end with JobStoppedError."""
        with self._lock:
            self._stopped = True
            for process in self._running:
                process.kill()

    @property
    def stopped(self) -> bool:
        """Whether `stop` was called."""
        return self._stopped

    def require_running(self) -> None:
        """Raise JobStoppedError once `stop` was called: what was begun is not complete."""
        if self._stopped:
            raise JobStoppedError

    @property
    def pids(self) -> list[int]:
        """Process ids of those that run."""
        with self._lock:
            return [process.pid for process in self._running]

    @contextmanager
    def guarding(self, start: Callable[[], subprocess.Popen[str]]) -> Iterator[Any]:
        """Start a process; it is killed and reaped when the block ends before it does."""
        with self._lock:
            if self._stopped:
                raise JobStoppedError
            process = start()
            self._running.add(process)
        try:
            yield process
        finally:
            process.kill()
            process.wait()
            with self._lock:
                self._running.discard(process)
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    stream.close()

    @contextmanager
    def run(self, module: str, parameters: dict[str, Any], progress: Progress) -> Iterator[Path]:
        """`run_child` in the state folder, leaving one core to the daemon.

        Raises:
            JobFailedError: The child reported an error, crashed or was killed.
            JobStoppedError: `stop` was called.
        """
        make_private_folder(self.folder)
        threads = str(max(1, len(os.sched_getaffinity(0)) - 1))
        limits = {"OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads}
        with run_child(module, parameters, progress, processes=self, environment=limits) as path:
            yield path


@contextmanager
def ending_jobs(
    processes: JobProcesses, stop: threading.Event, look_seconds: float
) -> Iterator[None]:
    """End the running job once `stop` is set; asked every `look_seconds` while the block runs."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(look_seconds):
            if stop.is_set():
                processes.stop()
                return

    watcher = threading.Thread(target=watch, name="stop of jobs")
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


@contextmanager
def run_child(
    module: str,
    parameters: dict[str, Any],
    progress: Progress,
    *,
    nice: int = NICE,
    started: Callable[[int], object] | None = None,
    processes: JobProcesses | None = None,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Path]:
    """Run `python -m module` and hand out the path of its result file.

    Args:
        module: What to run.
        parameters: Handed to it as JSON.
        progress: Called with what it reports.
        nice: Steps below this process's priority.
        started: Called with its process id.
        processes: Of the state folder in which it works; without one, in the folder for
            temporary files.
        environment: Variables to set beside those of this process.

    Raises:
        JobFailedError: The child reported an error, crashed or was killed.
        JobStoppedError: It was killed because the daemon stops.
    """
    place = None if processes is None else processes.folder
    with tempfile.TemporaryDirectory(prefix="stillwatch-", dir=place) as folder:
        out = Path(folder) / "result"
        errors = Path(folder) / "errors"
        with errors.open("wb") as error_file:

            def start() -> subprocess.Popen[str]:
                return _start(module, out, error_file, environment or {})

            keeper = processes or JobProcesses(Path(folder))
            with keeper.guarding(start) as process:
                _lower_priority(process.pid, nice)
                if started is not None:
                    started(process.pid)
                reason = _follow(process, parameters, progress)
                code = process.wait()
        if keeper.stopped:
            raise JobStoppedError
        if code != 0 or not out.exists():
            raise _failure(module, reason, errors, code)
        yield out


def _start(
    module: str, out: Path, error_file: BinaryIO, environment: Mapping[str, str]
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", module, str(out)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=error_file,
        text=True,
        env={**os.environ, **environment, PARENT: str(os.getpid())},
    )


def _lower_priority(pid: int, steps: int) -> None:
    priority = min(19, os.getpriority(os.PRIO_PROCESS, 0) + steps)
    os.setpriority(os.PRIO_PROCESS, pid, priority)


def _failure(module: str, reason: str | None, errors: Path, code: int) -> JobFailedError:
    """Why there is no result: by its own word, else its last error line, else how it ended."""
    tail = errors.read_text(errors="replace").strip().splitlines()[-1:]
    detail = reason or (tail[0] if tail else _ending(code))
    return JobFailedError(
        f"The job {module.rpartition('.')[2]} failed: {detail}",
        hint="What was there before is unchanged. Run it again; --verbose tells more.",
    )


def _ending(code: int) -> str:
    if code >= 0:
        return f"it ended with code {code}"
    name = signal.Signals(-code).name
    why = {
        "SIGKILL": ", as the kernel does when memory is short",
        "SIGBUS": ", as when a mapped file shrinks",
    }
    return f"it was ended by {name}{why.get(name, '')}"


def _follow(
    process: subprocess.Popen[str], parameters: dict[str, Any], progress: Progress
) -> str | None:
    """Hand in the parameters, pass on progress; the child's own reason of failure, if any."""
    if process.stdin is None or process.stdout is None:
        raise RuntimeError("the child was started without pipes")
    try:
        process.stdin.write(json.dumps(parameters))
        process.stdin.close()
    except BrokenPipeError:
        return None
    reason = None
    for line in process.stdout:
        if not line.endswith("\n"):
            break  # it was killed in the middle of a word
        message = json.loads(line)
        if "error" in message:
            reason = str(message["error"])
        else:
            progress(message["stage"], message["done"], message["total"])
    return reason


def read_parameters() -> dict[str, Any]:
    """In the child: the parameters from stdin; from now on it ends with its parent."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.environ.get(PARENT) != str(os.getppid()):
        sys.exit("the process that started this job is gone")
    parameters: dict[str, Any] = json.load(sys.stdin)
    return parameters


def report(stage: str, done: int, total: int) -> None:
    """In the child: one line of progress."""
    sys.stdout.write(json.dumps({"stage": stage, "done": done, "total": total}) + "\n")
    sys.stdout.flush()
