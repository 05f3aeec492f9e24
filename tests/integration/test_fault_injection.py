"""The fault injector itself: what it counts, how a call fails, and that the clock shifts."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.faults.injection import (
    CHANGES,
    KILL,
    NOTHING,
    SHORT,
    Action,
    Faults,
    Rule,
    error,
    missing,
)

pytestmark = pytest.mark.skipif(missing() is not None, reason=str(missing()))

PROGRAM = """
import os, sys, time
folder = sys.argv[1]
print(int(time.time()), flush=True)
sys.stdin.readline()
print(int(time.time()), flush=True)
try:
    fd = os.open(folder + "/a", os.O_CREAT | os.O_RDWR)
    print(os.write(fd, b"abcd"))
    os.fsync(fd)
    os.mkdir(folder + "/m")
    os.rename(folder + "/a", folder + "/b")
    os.link(folder + "/b", folder + "/c")
    os.unlink(folder + "/c")
    print(len(os.pread(fd, 100, 0)))
except OSError as exc:
    print(exc.strerror)
"""
CALLS = ("create", "write", "fsync", "mkdir", "rename", "link", "unlink")
"""What the program does, in this order."""


def run(
    faults: Faults, folder: Path, *, clock: float = 0.0, **rule: Any
) -> tuple[int, list[str], Rule]:
    """Run the program; exit status, its lines, and the rule."""
    folder.mkdir(exist_ok=True)
    command = [sys.executable, "-c", PROGRAM, str(folder)]
    environment = os.environ | faults.environment()
    with subprocess.Popen(
        command, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        wanted: dict[str, Any] = {"below": folder, "action": NOTHING} | rule
        armed = faults.arm(**wanted)
        faults.shift_clock(clock)
        rest, _ = process.communicate("\n")
    return process.returncode, [first.strip(), *rest.splitlines()], armed


@pytest.fixture
def faults(tmp_path: Path) -> Faults:
    return Faults(tmp_path / "faults.page")


def test_every_call_below_the_folder_counts_and_no_other(tmp_path: Path, faults: Faults) -> None:
    code, lines, rule = run(faults, tmp_path / "in")
    assert (code, lines[2:]) == (0, ["4", "4"])
    assert rule.seen == len(CALLS)
    assert run(faults, tmp_path / "in2", below=tmp_path / "in")[2].seen == 0


@pytest.mark.parametrize("number", [1, 4, 7])
def test_it_is_killed_just_before_the_call(tmp_path: Path, faults: Faults, number: int) -> None:
    code, _, rule = run(faults, tmp_path / "in", action=KILL, first=number, last=number)
    assert code == -signal.SIGKILL
    assert (rule.seen, rule.hits, rule.newest[0]) == (number, 1, CALLS[number - 1])
    found = {path.name for path in (tmp_path / "in").iterdir()}
    assert found == {1: set(), 4: {"a"}, 7: {"b", "c", "m"}}[number]


@pytest.mark.parametrize(
    ("rule", "end"),
    [
        ({"action": error(errno.EIO), "first": 3}, "Input/output error"),
        ({"action": error(errno.ENOSPC), "calls": ("write",)}, "No space left on device"),
        ({"action": error(errno.EXDEV), "calls": ("rename",)}, "Invalid cross-device link"),
        ({"action": error(errno.EIO), "calls": ("read",)}, "Input/output error"),
        ({"action": SHORT, "calls": ("write",)}, "2"),
    ],
)
def test_a_call_fails(tmp_path: Path, faults: Faults, rule: dict[str, Any], end: str) -> None:
    code, lines, armed = run(faults, tmp_path / "in", **rule)
    assert (code, lines[-1]) == (0, end)
    assert armed.hits == 1


def test_one_file_and_a_signal_of_choice(tmp_path: Path, faults: Faults) -> None:
    segv = Action("segv", 1, signal.SIGSEGV)
    code, _, rule = run(faults, tmp_path / "in", below=tmp_path / "in" / "c", action=segv)
    assert code == -signal.SIGSEGV
    assert rule.newest == ("link", os.fsencode(tmp_path / "in" / "c"))


def test_the_clock_of_a_running_process_jumps(tmp_path: Path, faults: Faults) -> None:
    _, lines, _ = run(faults, tmp_path / "in", clock=-3_000_000.0)
    assert int(lines[1]) - int(lines[0]) in range(-3_000_001, -2_999_990)
    faults.reset()
    assert run(faults, tmp_path / "in2", calls=CHANGES)[0] == 0
