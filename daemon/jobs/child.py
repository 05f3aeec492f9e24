"""Running a job's heavy part in a process of its own: low priority, killable, leaves no trace.

The child is `python -m daemon.jobs.<name>_child`, gets its parameters as JSON on stdin, writes
its result to a file and its progress as JSON lines to stdout.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from storage.errors import StillwatchError

Progress = Callable[[str, int, int], None]
"""Called with stage, done, total."""

NICE = 10
"""Steps below the daemon's priority, which the service manager may have lowered already."""


class JobFailedError(StillwatchError):
    """The process of a job ended without a result; the state before it stands."""

    code = "job_failed"


@contextmanager
def run_child(module: str, parameters: dict[str, Any], progress: Progress) -> Iterator[Path]:
    """Run `python -m module` and hand out the path of its result file.

    Raises:
        JobFailedError: The child reported an error, crashed or was killed.
    """
    with tempfile.TemporaryDirectory(prefix="stillwatch-") as folder:
        out = Path(folder) / "result"
        errors = Path(folder) / "errors"
        with errors.open("wb") as error_file:
            process = subprocess.Popen(
                [sys.executable, "-m", module, str(out)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=error_file,
                text=True,
            )
            try:
                nice = min(19, os.getpriority(os.PRIO_PROCESS, 0) + NICE)
                os.setpriority(os.PRIO_PROCESS, process.pid, nice)
                reason = _follow(process, parameters, progress)
                code = process.wait()
            except BaseException:
                process.kill()
                process.wait()
                raise
            finally:
                for stream in (process.stdin, process.stdout):
                    if stream is not None:
                        stream.close()
        if code != 0 or not out.exists():
            tail = errors.read_text(errors="replace").strip().splitlines()[-1:]
            detail = reason or (tail[0] if tail else f"it ended with code {code}")
            raise JobFailedError(
                f"The job {module.rpartition('.')[2]} failed: {detail}",
                hint="What was there before is unchanged. Run it again; --verbose tells more.",
            )
        yield out


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
        message = json.loads(line)
        if "error" in message:
            reason = str(message["error"])
        else:
            progress(message["stage"], message["done"], message["total"])
    return reason


def read_parameters() -> dict[str, Any]:
    """In the child: the parameters from stdin."""
    parameters: dict[str, Any] = json.load(sys.stdin)
    return parameters


def report(stage: str, done: int, total: int) -> None:
    """In the child: one line of progress."""
    sys.stdout.write(json.dumps({"stage": stage, "done": done, "total": total}) + "\n")
    sys.stdout.flush()
