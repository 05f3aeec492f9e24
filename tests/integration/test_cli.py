"""The command line on a real state folder: JSON keys, exit codes, escaping, pipes and terminals."""

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from storage.engine import Database
from storage.lock import StateLock
from storage.models import Meta
from tests.cli_state import ROOT, Result, add, make_state, run_cli

STATUS_KEYS = [
    *("state", "cameras", "frames", "ignored", "clusters", "encoder", "last_recluster"),
    *("last_dedup", "bytes", "latency_ms", "job", "last_prune", "settings", "paused"),
]
FRAME_KEYS = [
    *("id", "camera", "path", "original_path", "sha256", "captured_at", "time_source"),
    *("arrived_at", "state", "cluster", "distance", "max_distance", "p_value", "novelty"),
    *("outlier_score", "duplicate_of", "change_score", "reason"),
]


@pytest.fixture
def state(tmp_path: Path) -> Path:
    make_state(tmp_path / "state", tmp_path / "yard")
    return tmp_path / "state"


def terminal(*arguments: str, state: Path, columns: int = 140) -> str:
    """What a command prints on a terminal of its own."""
    leader, follower = pty.openpty()
    environment = dict(os.environ) | {
        "STILLWATCH_STATE": str(state),
        "COLUMNS": str(columns),
        "TERM": "xterm",
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "cli.main", *arguments],
        cwd=ROOT,
        env=environment,
        stdin=follower,
        stdout=follower,
        stderr=follower,
    )
    os.close(follower)
    output = b""
    try:
        while part := os.read(leader, 65536):
            output += part
    except OSError:  # EIO: the other end of the terminal is closed
        pass
    finally:
        os.close(leader)
        process.wait(timeout=60)
    return output.decode()


def test_status_json_has_the_contract_keys(state: Path) -> None:
    result = run_cli("status", "--json", state=state)
    facts = result.json()
    assert result.code == 0
    assert list(facts) == STATUS_KEYS
    assert facts["state"] == "stopped"
    assert set(facts["cameras"][0]) == {
        *("name", "root", "state", "reason", "last_arrival_at", "kind", "novelty", "dedup_test"),
        *("waiting", "left_out"),
    }
    assert facts["encoder"] == {
        "id": "efficientnet_lite0",
        "space": "lite0@abc",
        "state": "ready",
        "progress": 1.0,
        "switch": None,
    }
    assert set(facts["last_recluster"]) == {"at", "seconds", "run"}
    assert facts["ignored"] == 2


def test_status_check(state: Path) -> None:
    assert run_cli("status", "--check", state=state).code == 5
    with StateLock(state):
        assert run_cli("status", "--check", state=state).code == 0
        database = Database(state)
        add(database, Meta, key="paused", value=json.dumps("no inotify watches left"))
        database.close()
        assert run_cli("status", "--check", state=state).code == 4
        assert run_cli("status", state=state).code == 0


def test_frames_json_lines(state: Path) -> None:
    frames = run_cli("frames", "--json", state=state).json_lines()
    assert len(frames) == 12
    assert list(frames[0]) == FRAME_KEYS
    hostile = frames[4]
    assert hostile["path"] == "bad\n\x1b[31m\\xff\tname.jpg"
    assert set(hostile) - set(FRAME_KEYS) == {"path_b64", "original_path_b64"}


def test_no_output_lets_a_file_name_act(state: Path) -> None:
    for command in (["frames"], ["show", "f5"], ["why", "f5"], ["frames", "--json"]):
        out = run_cli(*command, state=state).out
        assert "\x1b" not in out
        assert "bad\n" not in out
    assert "\x1b[31m" not in terminal("frames", state=state)


def test_lists_are_tab_separated_when_piped(state: Path) -> None:
    lines = run_cli("frames", state=state).out.splitlines()
    assert len(lines) == 12  # no header: one line a frame
    assert {line.count("\t") for line in lines} == {8}
    assert lines[0].split("\t")[:3] == ["f1", "assigned", "yard"]
    assert run_cli("clusters", state=state).out.splitlines()[0].startswith("c1\tempty yard\t3\tf1")


def test_lists_are_tables_on_a_terminal(state: Path) -> None:
    shown = terminal("clusters", state=state)
    assert "MEDOID" in shown
    assert "\t" not in shown
    screen = terminal("status", state=state)
    assert "yard" in screen
    assert "stopped" in screen
    assert "12" in screen


def test_frames_state_filter_and_state_folder(state: Path, tmp_path: Path) -> None:
    by_name = run_cli("frames", "--state", "novel", "--json", state=state)
    assert [frame["id"] for frame in by_name.json_lines()] == ["f4"]
    both = run_cli("frames", "--state", str(state), "--state", "novel", "--json")
    assert both.out == by_name.out
    typo = run_cli("frames", "--state", "nvoel", state=state)
    assert typo.code == 2
    assert "nvoel" in typo.err
    assert run_cli("frames", "--state", str(tmp_path / "none")).code == 10


@pytest.mark.parametrize("position", ["before", "after"])
def test_global_options_stand_before_or_after_the_command(state: Path, position: str) -> None:
    options = ["--state", str(state), "--json"]
    order = [*options, "status"] if position == "before" else ["status", *options]
    assert run_cli(*order).json()["frames"]["total"] == 12


def test_global_options_of_groups(state: Path) -> None:
    expected = run_cli("clusters", "--json", state=state).json_lines()
    assert [cluster["id"] for cluster in expected] == ["c1", "c2"]
    assert run_cli("--json", "--state", str(state), "clusters").json_lines() == expected
    keys = ["id", "name", "size", "medoid", "max_distance", "first_seen", "last_seen"]
    keys += ["pinned", "ignored"]
    assert list(expected[0]) == keys
    dry = run_cli("clusters", "--json", "rename", "c1", "gate", "--state", str(state))
    assert dry.json()["name"] == "gate"


def test_show_and_why(state: Path, tmp_path: Path) -> None:
    by_id = run_cli("show", "f2", "--json", state=state).json()
    by_path = run_cli("show", str(tmp_path / "yard" / "b.jpg"), "--json", state=state).json()
    assert by_id == by_path
    assert by_id["runs"] == ["r2"]
    assert list(by_id)[: len(FRAME_KEYS)] == FRAME_KEYS
    text = run_cli("why", "f2", state=state).out
    for fact in ("f1 (a.jpg)", "0.80", "30 % from the left", "not calibrated yet", "empty yard"):
        assert fact in text
    calibrated = run_cli("why", "f1", state=state).out
    assert "0.0100, within the limit (max_distance) 0.0600" in calibrated
    assert "p-value: 0.4" in calibrated
    assert "beyond the limit" in run_cli("why", "f4", state=state).out
    assert "only zero bytes" in run_cli("why", "f5", state=state).out


def test_novel_runs_and_plan(state: Path) -> None:
    assert [frame["id"] for frame in run_cli("novel", "--json", state=state).json_lines()] == ["f4"]
    runs = run_cli("runs", "--json", state=state).json_lines()
    assert [(run["id"], run["kind"], run["state"]) for run in runs] == [
        ("r1", "recluster", "applied"),
        ("r2", "dedup", "planned"),
    ]
    plan = run_cli("dedup", "plan", "--json", state=state).json()
    assert list(plan) == ["run", "groups", "frames_redundant", "bytes_redundant"]
    assert plan["bytes_redundant"] == 2000
    member = plan["groups"][0]["members"][0]
    assert list(member) == ["frame", "path", "distance", "change_score", "reason", "sha256"]
    assert list(plan["groups"][0]) == ["keeper", "keeper_sha256", "members"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["dedup", "apply"],
        ["dedup", "apply", "r2"],
        ["dedup", "discard", "r2"],
        ["dedup", "keep", "f2"],
        ["dedup", "apart", "f2", "f1"],
        ["dedup", "keeper", "f2"],
        ["undo", "r2"],
        ["novel", "accept", "f4"],
        ["novel", "dismiss", "f4"],
        ["clusters", "rename", "c2", "gate"],
    ],
)
def test_what_changes_something_is_a_dry_run(state: Path, arguments: list[str]) -> None:
    before = (state / "stillwatch.db").read_bytes()
    result = run_cli(*arguments, "--json", state=state)
    assert (result.code, result.json()["dry_run"]) == (0, True)
    assert "--yes" in result.err
    assert (state / "stillwatch.db").read_bytes() == before


def error_of(result: Result) -> dict[str, object]:
    """The error object; also checks that people are told on stderr, without a traceback."""
    assert "Traceback" not in result.err
    assert result.err.startswith("error: ")
    error: dict[str, object] = result.json()["error"]
    assert list(error) == ["code", "summary", "hint", "path"]
    return error


@pytest.mark.parametrize(
    ("arguments", "code", "name"),
    [
        (["frames", "--wrong"], 2, "usage"),
        (["fraems"], 2, "usage"),
        (["show"], 2, "usage"),
        (["frames", "--limit", "none"], 2, "usage"),
        (["frames", "--since", "yesterday-ish"], 2, "usage"),
        (["frames", "--camera", "nowhere"], 1, "not_found"),
        (["show", "f99"], 1, "not_found"),
        (["why", "xyz"], 1, "not_found"),
        (["show", "f1x"], 1, "not_found"),
        (["novel", "accept", "f1"], 1, "conflict"),
        (["undo", "r1"], 1, "conflict"),
        (["undo", "r99"], 1, "not_found"),
        (["dedup", "apply", "r1"], 2, "usage"),
        (["clusters", "rename", "c2", "empty yard"], 2, "usage"),
        (["status", "--watch", "--check"], 2, "usage"),
        (["run", "/no/such/folder"], 2, "folder"),
        (["similar", "f1", "f2", "f4"], 2, "usage"),
    ],
)
def test_errors(state: Path, arguments: list[str], code: int, name: str) -> None:
    result = run_cli(*arguments, "--json", state=state)
    assert result.code == code
    assert error_of(result)["code"] == name


def test_nothing_but_the_name_is_an_error_with_a_hint() -> None:
    result = run_cli("--json")
    assert result.code == 2
    assert "--help" in str(error_of(result)["hint"])
    assert run_cli("dedup", "--json").code == 2


def test_no_state_yet(tmp_path: Path) -> None:
    for command in (["status"], ["frames"], ["recluster"], ["verify"], ["status", "--check"]):
        result = run_cli(*command, "--json", "--state", str(tmp_path / "none"))
        assert (result.code, error_of(result)["code"]) == (10, "no_state")


def test_a_newer_database(state: Path) -> None:
    database = Database(state)
    with database.write() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    database.close()
    result = run_cli("status", "--json", state=state)
    assert (result.code, error_of(result)["code"]) == (13, "newer_schema")


def test_damaged_settings(state: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.toml"
    broken.write_text("[ingest\n")
    for arguments in (["config", "show"], ["encoders"]):
        result = run_cli(*arguments, "--config", str(broken), "--json", state=state)
        assert (result.code, error_of(result)["code"]) == (2, "settings")
    (state / "stillwatch.toml").write_text("[ingest]\nsetle_seconds = 3\n")
    result = run_cli("config", "show", "--json", state=state)
    assert result.code == 2
    assert "setle_seconds" in str(error_of(result)["summary"])


def test_run_refuses_a_file_for_a_folder(tmp_path: Path) -> None:
    file = tmp_path / "a.jpg"
    file.write_bytes(b"")
    state = tmp_path / "new"
    result = run_cli("run", str(file), "--json", "--state", str(state))
    assert (result.code, error_of(result)["path"]) == (2, str(file))
    assert not state.exists()


def test_a_bug_is_one_line(state: Path) -> None:
    code = (
        "import sys, cli.status, cli.main\n"
        "cli.status.status = lambda *a, **k: 1 / 0\n"
        "sys.exit(cli.main.main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, "status", "--json", "--state", str(state)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    result = Result(done.returncode, done.stdout, done.stderr)
    assert result.code == 1
    assert "This is a bug" in str(error_of(result)["hint"])
    done = subprocess.run([*command, "--verbose"], cwd=ROOT, capture_output=True, text=True)
    assert "Traceback" in done.stderr


def test_the_reader_of_a_pipe_may_stop(state: Path) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    try:
        command = [sys.executable, "-m", "cli.main", "frames", "--state", str(state)]
        done = subprocess.run(
            command, cwd=ROOT, stdout=write_end, stderr=subprocess.PIPE, text=True
        )
    finally:
        os.close(write_end)
    assert (done.returncode, done.stderr) == (0, "")


def test_config_example_and_show(tmp_path: Path) -> None:
    example = tmp_path / "stillwatch.toml"
    assert run_cli("config", "example", str(example)).code == 0
    assert run_cli("config", "example").out == example.read_text()
    again = run_cli("config", "example", str(example), "--json")
    assert (again.code, error_of(again)["code"]) == (1, "conflict")
    shown = run_cli("config", "show", "--config", str(example), "--json").json()
    assert shown["ingest"]["settle_seconds"] == 2.0
    lines = run_cli("config", "show", "--config", str(example)).out.splitlines()
    assert "ingest.settle_seconds\t2.0\t2.0" in lines


def test_similar_compares_stored_vectors(state: Path) -> None:
    same = run_cli("similar", "f1", "f2", "--json", state=state).json()
    assert (same["percent"], same["distance"]) == (100.0, 0.0)
    other = run_cli("similar", "f1", "f4", state=state)
    assert other.out == "0.0 %\n"
    found = run_cli("similar", "f1", "-k", "2", "--json", state=state).json_lines()
    assert [row["frame"] for row in found] == ["f2", "f3"]
    forest = run_cli("similar", "f1", "-k", "2", "--trees", "5", "--json", state=state)
    assert forest.json_lines() == found
    assert run_cli("similar", "f6", "--json", state=state).code == 1  # pending: no vector
    assert run_cli("similar", "/no/such.jpg", "--json", state=state).code == 1


def test_shell_completion() -> None:
    environment = dict(os.environ) | {
        "_STILLWATCH_COMPLETE": "complete_bash",
        "COMP_WORDS": "stillwatch du",
        "COMP_CWORD": "1",
    }

    def complete(words: str, position: str) -> list[str]:
        done = subprocess.run(
            [sys.executable, "-m", "cli.main"],
            cwd=ROOT,
            env=environment | {"COMP_WORDS": words, "COMP_CWORD": position},
            capture_output=True,
            text=True,
        )
        return done.stdout.split()

    assert complete("stillwatch de", "1") == ["dedup", "demo"] or set(
        complete("stillwatch de", "1")
    ) == {"dedup", "demo"}
    words = {"plan", "diff", "apply", "discard", "apart", "keep", "keeper", "evaluate"}
    assert set(complete("stillwatch dedup ", "2")) == words
    assert "--json" in complete("stillwatch frames --", "2")
    assert complete("stillwatch frames --state nov", "3") == ["novel"]
