"""The figures as Markdown, each beside the mark it has to reach."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from tests.benchmarks.ingest import Series
from tests.benchmarks.ruler import Reading

INTRODUCTION: Final = """\
# Benchmarks

This page is written by the one command that measures everything:

```console
$ python tests/benchmarks/run_all.py DEV_FOLDER --fastdup PYTHON --out docs/benchmarks.md
```

`DEV_FOLDER` holds a folder of JPEG files for each camera (real footage, not in the repository);
`PYTHON` is the interpreter of an environment of its own with `pip install fastdup==2.54`.

## What is compared

- **Pictures**: 1,000 JPEG files, a fixed choice over the camera folders, copied to a fresh folder;
  everything is in the page cache.
- **bare**: one process; read a file, decode it as the product does (scaled), squeeze it, and after
  every eight pictures run the same network with two threads. No hash, no second picture for the
  change test, no process boundary, no database (`tests/benchmarks/bare_loop.py`).
- **product**: `stillwatch run` on the folder, from the first settled file to the moment an onlooker
  sees the last row: hash, decode in limited children, encode, record in SQLite. No job runs.
- **fastdup** 2.54: `fastdup.run(run_mode=1)`, its feature extraction without the search for
  neighbours, imports not counted, telemetry off. It looks once a second whether it is done, so its
  times are whole seconds.
- Three alternating rounds; the ratios are taken within a round, then their median.
- **The ruler**: a fixed matrix product and a fixed JPEG loop before and after every measurement. If
  one of them moved by more than 20 %, the measurement is repeated, three times at most.
- **Latency**: one file a second written into a watched folder; from the file's last change to the
  moment an onlooker sees the committed row, less `settle_seconds`.
- **Memory and idle time** are those of the daemon process; its children stand on their own lines.
"""


@dataclass(frozen=True, slots=True)
class Mark:
    """One figure; a mark without a bound is for information."""

    name: str
    value: float
    unit: str
    at_least: float | None = None
    at_most: float | None = None

    @property
    def holds(self) -> bool:
        """Whether the bound is kept."""
        low = self.at_least is None or self.value >= self.at_least
        return low and (self.at_most is None or self.value <= self.at_most)

    @property
    def bound(self) -> str:
        """The bound in words."""
        if self.at_least is not None:
            return f"at least {self.at_least:g} {self.unit}".rstrip()
        if self.at_most is not None:
            return f"at most {self.at_most:g} {self.unit}".rstrip()
        return ""

    def row(self) -> str:
        """A line of the table."""
        verdict = "" if not self.bound else ("yes" if self.holds else "**NO**")
        return f"| {self.name} | {_number(self.value)} {self.unit} | {self.bound} | {verdict} |"


@dataclass(slots=True)
class Report:
    """Collects the figures and prints them as they come."""

    machine: str
    at: datetime
    marks: list[Mark] = field(default_factory=list)
    contestants: list[Series] = field(default_factory=list)
    readings: list[tuple[str, Reading]] = field(default_factory=list)

    def say(self, line: str) -> None:
        """Print at once: a run takes a while."""
        print(line, flush=True)

    def mark(self, mark: Mark) -> None:
        """Add a figure."""
        self.marks.append(mark)
        self.say(mark.row())

    def series(self, contestants: Iterable[Series]) -> None:
        """Add the rates of the ingest."""
        self.contestants.extend(contestants)

    def reading(self, when: str, reading: Reading) -> None:
        """Add a reading of the ruler."""
        self.readings.append((when, reading))
        self.say(f"ruler {when}: {reading.text()}")

    @property
    def holds(self) -> bool:
        """Whether every mark is reached."""
        return all(mark.holds for mark in self.marks)

    def text(self) -> str:
        """The tables."""
        lines = [f"Measured {self.at:%Y-%m-%d} on {self.machine}.", ""]
        lines += ["| figure | measured | mark | reached |", "|---|---|---|---|"]
        lines += [mark.row() for mark in self.marks]
        if self.contestants:
            lines += ["", "| images a second | median | rounds | ruler |", "|---|---|---|---|"]
            lines += [_contestant(series) for series in self.contestants]
        lines += ["", "| ruler | reading |", "|---|---|"]
        lines += [f"| {when} | {reading.text()} |" for when, reading in self.readings]
        return "\n".join(lines)

    def page(self) -> str:
        """The whole page."""
        return f"{INTRODUCTION}\n## Figures\n\n{self.text()}\n"


def _contestant(series: Series) -> str:
    rounds = ", ".join(f"{rate:.0f}" for rate in series.rates)
    steady = "steady" if series.steady else "moved in every repeat of a round"
    return f"| {series.name} | {series.middle:.0f} | {rounds} | {steady} |"


def _number(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.2f}"
