"""Runs the parts of a benchmark one after the other and writes their section of the page.

A part is a module below `tests.benchmarks` with a function `measure`, which takes what it names of
the values it is offered; it returns rows, or an object with `rows` and a `text`.
"""

import inspect
import multiprocessing
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tests.benchmarks.page_section import Markers, replace_section
from tests.benchmarks.rows import Row, all_hold, table


@dataclass(frozen=True, slots=True)
class Result:
    """What one part found; `text` is Markdown that stands below the rows."""

    part: str
    title: str
    rows: list[Row]
    text: str
    seconds: float

    def section(self) -> str:
        """The part for the page and the screen."""
        body = f"### {self.title}\n\n{table(self.rows)}"
        tail = f"\n\n{self.text}" if self.text else ""
        return f"{body}{tail}\n\n`{self.part}`: {self.seconds:.0f} s."


@dataclass(frozen=True, slots=True)
class Suite:
    """Parts that make one section of the page.

    `titles`: module -> title, of the parts to run. `head`: Markdown that stands above them.
    `values`: what `measure` may ask for, beside `work`, a folder that is made for the run if
    that is None here.
    """

    titles: Mapping[str, str]
    markers: Markers
    head: str
    values: Mapping[str, Any]
    work: Path | None

    def run(self, out: Path | None) -> int:
        """Measure everything, rewrite the section of `out`.

        Returns:
            0; 1 where a row does not hold or a part fails; 2 where a part is missing.
        """
        absent = [part for part in self.titles if find_spec(f"tests.benchmarks.{part}") is None]
        if absent:
            print(f"Missing below tests/benchmarks: {', '.join(absent)}", file=sys.stderr)
            return 2
        with tempfile.TemporaryDirectory(prefix="stillwatch-benchmark-") as scratch:
            work = self.work or Path(scratch)
            work.mkdir(parents=True, exist_ok=True)
            holds, section = self._measure(dict(self.values) | {"work": work})
        if out is not None:
            page = out.read_text(encoding="utf-8")
            out.write_text(replace_section(page, section, self.markers), encoding="utf-8")
        return 0 if holds else 1

    def _measure(self, values: dict[str, Any]) -> tuple[bool, str]:
        """Whether all rows hold, and the Markdown of the section."""
        print(self.head, flush=True)
        results: list[Result] = []
        for part, title in self.titles.items():
            print(f"\n{title} ...", flush=True)
            results.append(run_apart(part, title, values))
            print(f"{results[-1].section()} Load {os.getloadavg()[0]:.1f}.", flush=True)
        rows = [row for result in results for row in result.rows]
        summary = _summary(rows)
        print(f"\n{summary}", flush=True)
        sections = [result.section() for result in results]
        return all_hold(rows), "\n\n".join([self.head, *sections, summary])


def _summary(rows: Sequence[Row]) -> str:
    missed = sum(row.holds is False for row in rows)
    marked = sum(row.holds is not None for row in rows)
    load = f"Load at the end {os.getloadavg()[0]:.1f}."
    return f"{marked - missed} of {marked} rows with a mark hold. {load}"


def run_part(part: str, title: str, values: dict[str, Any]) -> Result:
    """Measure one part; a failure is a row that does not hold."""
    start = time.perf_counter()
    try:
        measure: Callable[..., Any] = import_module(f"tests.benchmarks.{part}").measure
        wanted = inspect.signature(measure).parameters
        found = measure(**{name: value for name, value in values.items() if name in wanted})
    except Exception as exc:  # the other parts shall be measured all the same
        traceback.print_exc()
        found = [_failed(title, exc)]
    rows, text = (found, "") if isinstance(found, list) else (found.rows, found.text)
    return Result(part, title, rows, text, time.perf_counter() - start)


def run_apart(part: str, title: str, values: dict[str, Any]) -> Result:
    """`run_part` in a fresh process: threads and memory of one part do not touch the next."""
    context = multiprocessing.get_context("spawn")
    try:
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            return pool.submit(run_part, part, title, values).result()
    except Exception as exc:  # the process was killed, or what it found cannot be sent
        return Result(part, title, [_failed(title, exc)], "", 0.0)


def _failed(title: str, exc: Exception) -> Row:
    return Row(title, "failed", "measured", False, f"{type(exc).__name__}: {exc}")
