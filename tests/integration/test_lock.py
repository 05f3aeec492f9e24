"""The lock of the state folder, between real processes."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from storage.errors import LockedError
from storage.lock import StateLock, holder
from tests.tools.holding import holding

HOLD = """
import sys, pathlib
from storage.lock import StateLock
lock = StateLock(pathlib.Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


def test_a_second_process_is_refused_and_told_the_pid(tmp_path: Path) -> None:
    assert holder(tmp_path) is None
    with holding(HOLD, tmp_path) as process:
        assert holder(tmp_path) == process.pid
        with pytest.raises(LockedError, match=str(process.pid)) as caught:
            StateLock(tmp_path)
        assert caught.value.exit_code == 11
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert holder(tmp_path) is None
        with StateLock(tmp_path):
            assert holder(tmp_path) == os.getpid()
    assert holder(tmp_path) is None


def test_looking_never_keeps_a_daemon_from_starting(tmp_path: Path) -> None:
    looking = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys, pathlib\nfrom storage.lock import holder\nprint('go', flush=True)\n"
            "while True: holder(pathlib.Path(sys.argv[1]))",
            str(tmp_path),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert looking.stdout is not None
        looking.stdout.readline()
        for _ in range(50):
            StateLock(tmp_path).release()
    finally:
        looking.kill()
        looking.communicate()


def test_children_do_not_inherit_the_lock(tmp_path: Path) -> None:
    lock = StateLock(tmp_path)
    child = subprocess.Popen(
        [sys.executable, "-c", "import sys; print('up', flush=True); sys.stdin.read()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        close_fds=False,
    )
    assert child.stdout is not None
    child.stdout.readline()
    lock.release()
    lock.release()
    try:
        assert holder(tmp_path) is None
    finally:
        child.communicate()


def test_the_look_is_cheap_in_imports(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib, storage.lock; storage.lock.holder(pathlib.Path(sys.argv[1]));"
        "bad = {'sqlalchemy', 'numpy', 'pydantic', 'alembic'} & set(sys.modules); assert not bad"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
