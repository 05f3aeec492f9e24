"""The only place that prints: tables for people, tab-separated lines for pipes, JSON for programs.

Results go to stdout, everything else to stderr. Whatever comes from outside (file names, reasons
with file names in them) is escaped, so that a file cannot forge a line or drive the terminal.
"""

import json
import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, Protocol

from cli.logs import journal_prefix
from storage.errors import StillwatchError
from storage.names import printable_path

if TYPE_CHECKING:
    from rich.console import Console


class ProgressReport(Protocol):
    """Takes how far a job is."""

    def __call__(
        self,
        stage: str,
        done: int,
        total: int,
        seconds_left: float | None = None,
        pace: str = "",
    ) -> None:
        """The stage, the number done, the total (0: unknown), how long it may take, how fast."""
        ...


_PAGE_ROWS: Final = 500
"""Rows of a terminal table before the next one begins: widths need the rows in memory."""
_PLAIN_SECONDS: Final = 2.0
"""Plain progress lines come no faster than this within a stage."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a list: its title and the key (or function) that gives its value."""

    title: str
    value: str | Callable[[Mapping[str, Any]], object]
    right: bool = False
    is_time: bool = False

    def cell(self, row: Mapping[str, Any]) -> str:
        """The cell's text, escaped."""
        found = row.get(self.value) if isinstance(self.value, str) else self.value(row)
        return cell_text(found)

    def short_cell(self, row: Mapping[str, Any]) -> str:
        """The cell for a table: of a time only date, hours, minutes and seconds."""
        text = self.cell(row)
        return text[:19].replace("T", " ") if self.is_time else text


def printable(text: str) -> str:
    r"""Text without control characters: they become ``\xNN``."""
    return printable_path(text.encode("utf-8", "surrogateescape"))


def cell_text(value: object) -> str:
    """A value as people read it; nothing is an empty cell."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1000 else f"{value:.0f}"
    if isinstance(value, list):
        return ", ".join(cell_text(item) for item in value)
    return printable(str(value))


class Output:
    """How one invocation prints.

    Side effects: writes to stdout and stderr; nothing else of the program does.
    """

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        self.is_terminal = sys.stdout.isatty() and not as_json

    def json(self, data: object) -> None:
        """One line of JSON. ASCII only, so that no name in it can act on a terminal."""
        sys.stdout.write(json.dumps(data) + "\n")
        sys.stdout.flush()

    def lines(self, lines: Iterable[str]) -> None:
        """Plain lines of results, already escaped where needed."""
        sys.stdout.writelines(f"{line}\n" for line in lines)
        sys.stdout.flush()

    def rich(self, *renderables: Any) -> None:
        """Rich renderables on stdout (only for a terminal)."""
        self.console().print(*renderables, sep="\n")

    def console(self) -> "Console":
        """A rich console on stdout that guesses nothing from the text itself."""
        from rich.console import Console

        return Console(highlight=False, markup=False, emoji=False)

    def listing(
        self, columns: Sequence[Column], rows: Iterable[Mapping[str, Any]], *, empty: str = ""
    ) -> None:
        """A list: JSON lines, tab-separated lines without a header, or tables.

        Args:
            columns: What people see; JSON has the whole row.
            rows: The rows; they are printed as they come.
            empty: What stderr says where there is none.
        """
        rows = iter(rows)
        first = list(islice(rows, 1))
        if not first and empty and not self.as_json:
            self.note(empty)
        everything = _chain(first, rows)
        if self.as_json:
            sys.stdout.writelines(json.dumps(dict(row)) + "\n" for row in everything)
        elif not self.is_terminal:
            sys.stdout.writelines(
                "\t".join(column.cell(row) for column in columns) + "\n" for row in everything
            )
        else:
            while page := list(islice(everything, _PAGE_ROWS)):
                self.rich(make_table(columns, page))
        sys.stdout.flush()

    def facts(self, facts: Mapping[str, object]) -> None:
        """Names and values: aligned on a terminal, tab-separated when piped."""
        width = max((len(name) for name in facts), default=0)
        for name, value in facts.items():
            gap = " " * (width - len(name) + 2) if self.is_terminal else "\t"
            sys.stdout.write(f"{name}{gap}{cell_text(value)}\n")
        sys.stdout.flush()

    def note(self, text: str, level: int = logging.INFO) -> None:
        """One plain line on stderr; in systemd's journal it has the level's priority."""
        sys.stderr.write(f"{journal_prefix(level)}{printable(text)}\n")
        sys.stderr.flush()

    def error(self, error: StillwatchError) -> None:
        """An error: one line and its hint on stderr; with JSON the error object on stdout."""
        where = f" ({error.path})" if error.path and error.path not in error.summary else ""
        self.note(f"error: {error.summary}{where}", logging.ERROR)
        if error.hint:
            self.note(f"hint: {error.hint}", logging.ERROR)
        if self.as_json:
            self.json({"error": error.as_json()})

    @contextmanager
    def progress(self) -> Iterator[ProgressReport]:
        """Progress on stderr: a bar on a terminal, plain lines elsewhere."""
        if not sys.stderr.isatty():
            yield _PlainProgress(self.note)
            return
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.fields[count]}", markup=False),
            TimeElapsedColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        with bar:
            task = bar.add_task("waiting", total=None, count="")

            def report(
                stage: str,
                done: int,
                total: int,
                seconds_left: float | None = None,
                pace: str = "",
            ) -> None:
                count = (f"{done}/{total}" if total else "") + pace_words(pace, seconds_left)
                bar.update(
                    task,
                    description=printable(stage),
                    completed=done,
                    total=total or None,
                    count=count,
                )

            yield report


class _PlainProgress:
    """Progress as lines: one for every stage, then one every two seconds."""

    def __init__(self, note: Callable[[str], None]) -> None:
        self._note = note
        self._stage: str | None = None
        self._last: tuple[int, int] | None = None
        self._at = 0.0

    def __call__(
        self,
        stage: str,
        done: int,
        total: int,
        seconds_left: float | None = None,
        pace: str = "",
    ) -> None:
        """Print the line unless it would say the same, or too soon."""
        now = time.monotonic()
        same = stage == self._stage
        if same and ((done, total) == self._last or now - self._at < _PLAIN_SECONDS):
            return
        self._stage, self._last, self._at = stage, (done, total), now
        count = f": {done}/{total}" if total else ""
        self._note(f"{stage}{count}{pace_words(pace, seconds_left)}")


def pace_words(pace: str, seconds_left: float | None) -> str:
    """How fast a job goes and how long it may still take: `, 350 a second, about 20 s left`."""
    return (f", {pace}" if pace else "") + left_words(seconds_left)


def left_words(seconds: float | None) -> str:
    """How long a job may still take: `, about 20 s left`; nothing where it is not known."""
    if seconds is None:
        return ""
    return (
        f", about {seconds:.0f} s left" if seconds < 90 else f", about {seconds / 60:.0f} min left"
    )


def make_table(columns: Sequence[Column], rows: Iterable[Mapping[str, Any]]) -> Any:
    """A rich table; text is taken as it is, never as markup."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    last = columns[-1] if columns else None
    for column in columns:
        # Only the last column (a path, a reason) breaks over lines; a broken id cannot be read.
        table.add_column(
            column.title,
            justify="right" if column.right else "left",
            no_wrap=column is not last,
            overflow="fold" if column is last else "ellipsis",
        )
    for row in rows:
        table.add_row(*(Text(column.short_cell(row)) for column in columns))
    return table


def _chain(
    first: list[Mapping[str, Any]], rest: Iterator[Mapping[str, Any]]
) -> Iterator[Mapping[str, Any]]:
    yield from first
    yield from rest
