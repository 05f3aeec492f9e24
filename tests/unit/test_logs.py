import io
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.logs import (
    KIND_LINES,
    SAME_SECONDS,
    FloodGate,
    LineFormatter,
    journal_prefix,
    log_events,
    set_up_logging,
    to_journal,
)
from cli.output import Output
from storage.errors import FolderError


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def lines(clock: Clock) -> Iterator[tuple[logging.Logger, io.StringIO]]:
    """A logger of its own behind the gate, and what it printed."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(LineFormatter())
    handler.addFilter(FloodGate(clock))
    logger = logging.getLogger("test of lines")
    logger.propagate = False
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield logger, stream
    logger.removeHandler(handler)


def record(text: str, *arguments: object) -> logging.LogRecord:
    return logging.LogRecord("daemon.x", logging.WARNING, "x.py", 1, text, arguments, None)


@pytest.mark.parametrize(
    "name",
    [
        "a\nERROR b",
        "a\rb",
        "\x1b[31m",
        "\x9b2J",
        "\u202e",
        "a\u2028b",
        "\x00",
        os.fsdecode(b"\xff"),
    ],
)
def test_a_name_forges_no_line_and_steers_no_terminal(name: str) -> None:
    line = LineFormatter().format(record("%s is refused", name))
    assert line.startswith("WARNING daemon.x: ")
    assert line.isprintable()
    assert len(line.splitlines()) == 1
    line.encode("utf-8")


def test_an_unexpected_error_is_one_line_that_says_where(
    lines: tuple[logging.Logger, io.StringIO],
) -> None:
    logger, stream = lines

    def inner() -> None:
        raise ValueError("two\nlines")

    try:
        inner()
    except ValueError:
        logger.exception("a job failed")
    (line,) = stream.getvalue().splitlines()
    assert "a job failed [Traceback: ValueError: two\\x0alines; test_logs.py:" in line
    assert " inner < test_logs.py:" in line


def test_the_same_line_comes_once_a_minute_with_a_count(
    lines: tuple[logging.Logger, io.StringIO], clock: Clock
) -> None:
    logger, stream = lines
    for _ in range(500):
        logger.warning("the disk is slow")
    assert stream.getvalue() == "WARNING test of lines: the disk is slow\n"
    clock.now += SAME_SECONDS
    logger.warning("the disk is slow")
    assert stream.getvalue().splitlines()[1:] == [
        "WARNING test of lines: the disk is slow (the same 499 times more in between)"
    ]
    clock.now += SAME_SECONDS
    logger.warning("the disk is slow")
    assert stream.getvalue().splitlines()[2] == "WARNING test of lines: the disk is slow"


def test_a_flood_of_one_kind_is_cut_and_other_lines_are_not(
    lines: tuple[logging.Logger, io.StringIO], clock: Clock
) -> None:
    logger, stream = lines
    for number in range(3000):
        logger.warning("%s is no picture", f"{number}.jpg")
    logger.error("something else")
    shown = stream.getvalue().splitlines()
    assert len(shown) == KIND_LINES + 1
    assert shown[-2].endswith("(more of this kind are only counted for a minute)")
    assert shown[-1] == "ERROR test of lines: something else"
    clock.now += SAME_SECONDS
    logger.warning("%s is no picture", "later.jpg")
    assert "(2990 more of this kind were not shown)" in stream.getvalue()


def test_the_gate_keeps_no_memory_of_every_line(clock: Clock) -> None:
    gate = FloodGate(clock)
    for number in range(20_000):
        clock.now += 1.0
        gate.filter(record(f"line {number}"))
    assert len(gate._same) < 2000


def test_lines_to_the_journal_begin_with_their_priority(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    status = os.fstat(2)
    monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
    assert to_journal()
    assert LineFormatter(times=True).format(record("x")) == "<4>WARNING daemon.x: x"
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    Output(as_json=False).error(FolderError("no folder", hint="make it"))
    assert isinstance(sys.stderr, io.StringIO)
    assert sys.stderr.getvalue() == "<3>error: no folder\n<3>hint: make it\n"
    monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino + 1}")
    assert not to_journal()
    assert journal_prefix(logging.ERROR) == ""
    monkeypatch.delenv("JOURNAL_STREAM")
    assert LineFormatter(times=True).format(record("x"))[:2] == "20"


def test_a_daemon_tells_what_it_does_and_a_command_only_what_is_wrong() -> None:
    set_up_logging(verbose=False)
    assert logging.getLogger("daemon").getEffectiveLevel() == logging.WARNING
    log_events()
    assert logging.getLogger("daemon").getEffectiveLevel() == logging.INFO
    (handler,) = logging.getLogger("daemon").handlers
    assert [type(one) for one in handler.filters] == [FloodGate]
    set_up_logging(verbose=True)
    assert logging.getLogger("storage").getEffectiveLevel() == logging.DEBUG
    set_up_logging(verbose=False)
