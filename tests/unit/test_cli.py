"""The pure parts of the command line: ages, sizes, cells, options, the state folder."""

from pathlib import Path
from typing import Any

import pytest
import typer

from cli.context import SYSTEM_STATE, Context, user_state
from cli.filters import parse_since, split_states
from cli.main import app_command
from cli.output import Column, cell_text
from cli.plain_values import PlainValue
from cli.screen import age, human_bytes, status_screen
from storage.errors import UsageError
from storage.reading import iso_time

NOW = 1_770_000_000.0


@pytest.mark.parametrize(
    ("seconds", "words"), [(0, "0 s ago"), (59, "59 s ago"), (61, "1 min ago"), (90000, "1 d ago")]
)
def test_age(seconds: float, words: str) -> None:
    assert age(iso_time(NOW - seconds), NOW) == words


def test_age_of_nothing_and_of_the_future() -> None:
    assert age(None, NOW) == "-"
    assert age(iso_time(NOW + 60), NOW) == "0 s ago"


@pytest.mark.parametrize(
    ("count", "words"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (12_345_678, "12.3 MB"), (5e15, "5000.0 TB")],
)
def test_human_bytes(count: float, words: str) -> None:
    assert human_bytes(count) == words


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ""),
        (True, "yes"),
        (0.012344, "0.01234"),
        (123456.7, "123457"),
        ("a\tb\n\x1b[2J\u202e", "a\\x09b\\x0a\\x1b[2J\\x202e"),
        (["f1", "f2"], "f1, f2"),
        ("\udcff", "\\xff"),
    ],
)
def test_cells(value: object, text: str) -> None:
    assert cell_text(value) == text


def test_times_are_short_in_tables_and_whole_in_pipes() -> None:
    column = Column("AT", "at", is_time=True)
    row = {"at": "2026-05-01T12:00:00.250+02:00"}
    assert column.cell(row) == row["at"]
    assert column.short_cell(row) == "2026-05-01 12:00:00"


@pytest.mark.parametrize(("text", "seconds"), [("90m", 5400), ("12h", 43200), ("7d", 604800)])
def test_since_as_an_age(text: str, seconds: float) -> None:
    assert parse_since(text, NOW) == NOW - seconds


def test_since_as_a_time() -> None:
    assert parse_since("2026-02-02T02:40:00+00:00", NOW) == NOW
    assert parse_since("2026-05-02", NOW) - parse_since("2026-05-01", NOW) in (82800, 86400, 90000)


@pytest.mark.parametrize("text", ["", "yesterday", "m", "-5m", "99999999999999999999d", "1w"])
def test_since_refuses_what_it_does_not_understand(text: str) -> None:
    with pytest.raises(UsageError, match="--since"):
        parse_since(text, NOW)


def test_states_and_the_state_folder_share_an_option(tmp_path: Path) -> None:
    assert split_states(["novel", str(tmp_path), "pending"]) == (["novel", "pending"], tmp_path)
    assert split_states([]) == ([], None)
    with pytest.raises(UsageError, match="nvoel"):
        split_states(["nvoel"])


@pytest.mark.parametrize(
    ("annotation", "given", "value"),
    [
        (bool, True, True),
        (int, "12", 12),
        (float, "1.5", 1.5),
        (Path, "a/b", Path("a/b")),
        (list[str], ("a", "b"), ["a", "b"]),
        (list[Path], (), []),
        (str, None, None),
    ],
)
def test_values_are_converted(annotation: object, given: object, value: object) -> None:
    assert PlainValue(annotation, None).coerce(given, None, None) == value


@pytest.mark.parametrize(
    ("annotation", "given", "words"),
    [
        (int, "x", "x is not a whole number"),
        (float, "", "is not a number"),
        (int, "0", "0 is less than 1"),
        (float, "nan", "nan is less than 1"),
    ],
)
def test_wrong_values_are_refused(annotation: object, given: object, words: str) -> None:
    with pytest.raises(typer.BadParameter, match=words):
        PlainValue(annotation, 1).coerce(given, None, None)


def test_every_parameter_has_a_plain_converter() -> None:
    def check(command: Any) -> None:
        for parameter in command.params:
            assert isinstance(parameter.get_runtime_param(), PlainValue), parameter.name
        for below in getattr(command, "commands", {}).values():
            check(below)

    check(app_command())


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("STILLWATCH_STATE", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_the_state_folder_in_its_order(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Context().state_dir == SYSTEM_STATE
    own = home / ".local" / "state" / "stillwatch"
    own.mkdir(parents=True)
    assert Context().state_dir == own
    monkeypatch.setenv("STILLWATCH_STATE", str(home / "named"))
    assert Context().state_dir == home / "named"
    assert Context(state=home / "given").state_dir == home / "given"


def test_xdg_state_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(home / "xdg"))
    assert user_state() == home / "xdg" / "stillwatch"
    monkeypatch.setenv("XDG_STATE_HOME", "relative/is/ignored")
    assert user_state() == home / ".local" / "state" / "stillwatch"


def test_a_state_folder_is_made_for_run(home: Path) -> None:
    assert Context(state=home / "a" / "b").made_state_dir() == home / "a" / "b"
    assert (home / "a" / "b").is_dir()
    if not SYSTEM_STATE.exists():
        assert Context().made_state_dir() == home / ".local" / "state" / "stillwatch"


def test_the_status_screen_of_an_empty_state() -> None:
    facts = {
        "state": "stopped",
        "cameras": [],
        "frames": dict.fromkeys(["total", "on_disk"], 0) | _no_states(),
        "ignored": 0,
        "clusters": 0,
        "encoder": {"id": None, "space": None, "state": "unknown", "progress": None}
        | {"switch": None},
        "last_recluster": None,
        "last_dedup": None,
        "last_prune": None,
        "bytes": {"total": 0, "redundant": 0, "freed": 0},
        "latency_ms": None,
        "job": None,
    }
    assert "no camera yet" in status_screen(facts, [], None, Path("/state"), NOW)


def _no_states() -> dict[str, int]:
    from storage.states import STATES

    return dict.fromkeys(STATES, 0)
