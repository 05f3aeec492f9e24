"""Asking a daemon: a real process holds the lock and answers the rows of `requests`."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from storage.lock import holder
from storage.reading import Reader
from tests.cli_state import ROOT, make_state, run_cli

PEER = r"""
import json, sys, time
from pathlib import Path
from storage.lock import StateLock
from storage.database_file import sqlite_driver

state, mode = Path(sys.argv[1]), sys.argv[2]
lock = StateLock(state)
print("ready", flush=True)
db = sqlite_driver().connect(state / "stillwatch.db", timeout=10, isolation_level=None)

def wait_for_request():
    while True:
        row = db.execute(
            "SELECT id, kind, arguments FROM requests WHERE state = 'queued'").fetchone()
        if row:
            return row
        time.sleep(0.02)

number, kind, arguments = wait_for_request()
if mode == "die":
    sys.exit(0)
progress = json.dumps({"stage": "moving", "done": 1, "total": 2})
db.execute("UPDATE requests SET state = 'running', progress = ? WHERE id = ?", (progress, number))
if mode == "hang":
    time.sleep(600)
time.sleep(0.3)
result = {"run": "r9", "kind": kind, "arguments": json.loads(arguments)}
if mode == "error":
    result = {"error": {"code": "conflict", "summary": "r8 came later", "hint": "h", "path": None}}
code = {"partly": 3, "error": 1}.get(mode, 0)
db.execute("UPDATE requests SET state = 'done', result = ?, exit_code = ? WHERE id = ?",
           (json.dumps(result), code, number))
sys.stdin.read()
"""


@pytest.fixture
def state(tmp_path: Path) -> Path:
    make_state(tmp_path / "state", tmp_path / "yard")
    return tmp_path / "state"


@pytest.fixture
def peer(state: Path) -> Iterator[Callable[[str], "subprocess.Popen[str]"]]:
    started: list[subprocess.Popen[str]] = []

    def start(mode: str) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, "-c", PEER, str(state), mode],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_a_job_is_asked_for_and_answered(
    state: Path, peer: Callable[[str], "subprocess.Popen[str]"]
) -> None:
    process = peer("answer")
    result = run_cli("novel", "accept", "f4", "--yes", "--json", state=state)
    assert result.code == 0
    assert result.json() == {"run": "r9", "kind": "novel_accept", "arguments": {"frames": [4]}}
    assert "moving: 1/2" in result.err  # plain lines where stderr is no terminal
    with Reader(state) as reader:
        row = reader.one("SELECT * FROM requests")
    assert (row["kind"], json.loads(row["arguments"])) == ("novel_accept", {"frames": [4]})
    assert row["actor"]
    assert holder(state) == process.pid


@pytest.mark.parametrize(
    ("arguments", "kind", "sent"),
    [
        (["recluster"], "recluster", {}),
        (["dedup", "plan", "--new"], "dedup_plan", {"recompute": False}),
        (["dedup", "plan", "--recompute"], "dedup_plan", {"recompute": True}),
        (["dedup", "apply", "--yes"], "dedup_apply", {"run": 2}),
        (["dedup", "discard", "r2", "--yes"], "dedup_discard", {"run": 2}),
        (["undo", "r2", "--yes"], "undo", {"run": 2}),
        (["novel", "dismiss", "f4", "f4", "--yes"], "novel_dismiss", {"frames": [4]}),
        (
            ["clusters", "rename", "c2", "gate", "--yes"],
            "cluster_rename",
            {"cluster": 2, "name": "gate"},
        ),
    ],
)
def test_no_wait_prints_the_request(
    state: Path,
    peer: Callable[[str], "subprocess.Popen[str]"],
    arguments: list[str],
    kind: str,
    sent: dict[str, object],
) -> None:
    peer("answer")
    result = run_cli(*arguments, "--no-wait", "--json", state=state)
    assert (result.code, result.json()) == (0, {"request": "q1"})
    with Reader(state) as reader:
        row = reader.one("SELECT * FROM requests")
    assert (row["kind"], json.loads(row["arguments"])) == (kind, sent)


def test_the_exit_code_is_the_jobs(
    state: Path, peer: Callable[[str], "subprocess.Popen[str]"]
) -> None:
    peer("partly")
    result = run_cli("dedup", "apply", "r2", "--yes", state=state)
    assert result.code == 3
    assert "run\tr9" in result.out
    assert "stillwatch undo r9 --yes" in result.err


def test_an_error_of_the_daemon_is_told_like_any_other(
    state: Path, peer: Callable[[str], "subprocess.Popen[str]"]
) -> None:
    peer("error")
    result = run_cli("undo", "r2", "--yes", "--json", state=state)
    assert result.code == 1
    assert result.json()["error"]["code"] == "conflict"
    assert "error: r8 came later" in result.err


def test_a_daemon_that_dies_is_noticed(
    state: Path, peer: Callable[[str], "subprocess.Popen[str]"]
) -> None:
    peer("die")
    result = run_cli("recluster", "--json", state=state)
    assert result.code == 1
    assert "daemon ended" in result.json()["error"]["summary"]


def test_ctrl_c_ends_the_waiting(
    state: Path, peer: Callable[[str], "subprocess.Popen[str]"]
) -> None:
    peer("hang")
    command = [sys.executable, "-m", "cli.main", "recluster", "--state", str(state)]
    with subprocess.Popen(
        command, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        while "moving" not in process.stderr.readline():
            pass
        os.kill(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in err
