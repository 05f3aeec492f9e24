"""The one command for everything promised about clustering, identity and novelty.

    python -m tests.benchmarks.issue3 DEV_FOLDER [--quick] [--fastdup PYTHON]
        [--other FOLDER ...] [--only PART ...] [--work FOLDER] [--out docs/benchmarks.md]

DEV_FOLDER holds the labelled and the camera folders (real pictures, not in the repository).
PYTHON is the interpreter of an environment with `fastdup==2.54`; without it that peer is left out.
`--other` names planted sets of another generator (`clustering_scale`) to compare with.
Each part runs in a process of its own and prints its rows when it is done; with `--out` the
section "Clustering and novelty" of that page is rewritten. Ends with 1 where a row does not hold
or a part fails, with 2 where a part is missing.
"""

import argparse
import inspect
import multiprocessing
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from tests.benchmarks.page_section import replace_section
from tests.benchmarks.rows import Row, all_hold, table
from tests.benchmarks.run_all import machine

PARTS: Final = {
    "clustering_scale": "Clustering: speed, memory, agreement",
    "online_assignment": "Assignment on arrival",
    "identity_stability": "Identities across reclusters",
    "index_speed": "Index and similar",
    "ingest_during_recluster": "Ingest while a recluster runs",
    "clustering_real": "Real data: clustering, defaults only",
    "novelty_real": "Real data: novelty of scenes",
    "places_real": "Real data: novelty of places",
}
"""Module below `tests.benchmarks` -> title. Each has `measure`, which takes what it names of `dev`,
`work`, `quick`, `fastdup` and `other`; it returns rows, or an object with `rows` and a `text`."""
LIBRARIES: Final = ("numpy", "scipy", "faiss-cpu", "hdbscan", "scikit-learn", "ai-edge-litert")
INTRODUCTION: Final = """\
## Clustering and novelty

Written by one command, which measures each part in a process of its own:

```console
$ python -m tests.benchmarks.issue3 DEV_FOLDER --fastdup PYTHON --out docs/benchmarks.md
```"""


@dataclass(frozen=True, slots=True)
class Options:
    """The command line."""

    dev: Path
    quick: bool
    fastdup: Path | None
    other: Sequence[Path]
    parts: Sequence[str]
    work: Path | None
    out: Path | None


@dataclass(frozen=True, slots=True)
class Result:
    """What one part found; `text` is Markdown that stands below the rows."""

    part: str
    rows: list[Row]
    text: str
    seconds: float

    def section(self) -> str:
        """The part for the page and the screen."""
        body = f"### {PARTS[self.part]}\n\n{table(self.rows)}"
        tail = f"\n\n{self.text}" if self.text else ""
        return f"{body}{tail}\n\n`{self.part}`: {self.seconds:.0f} s."


def read_options(arguments: Sequence[str] | None) -> Options:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("dev", type=Path, metavar="DEV_FOLDER")
    parser.add_argument("--quick", action="store_true", help="smaller sizes, for a first look")
    parser.add_argument("--fastdup", type=Path, metavar="PYTHON")
    parser.add_argument("--other", type=Path, nargs="+", default=[], metavar="FOLDER")
    parser.add_argument("--only", choices=PARTS, nargs="+", default=list(PARTS), metavar="PART")
    parser.add_argument("--work", type=Path, metavar="FOLDER", help="kept, with the embeddings")
    parser.add_argument("--out", type=Path, metavar="FILE.md")
    chosen = parser.parse_args(arguments)
    return Options(
        chosen.dev,
        chosen.quick,
        chosen.fastdup,
        chosen.other,
        chosen.only,
        chosen.work,
        chosen.out,
    )


def run_part(part: str, values: dict[str, Any]) -> Result:
    """Measure one part; a failure is a row that does not hold."""
    start = time.perf_counter()
    try:
        measure: Callable[..., Any] = import_module(f"tests.benchmarks.{part}").measure
        wanted = inspect.signature(measure).parameters
        found = measure(**{name: value for name, value in values.items() if name in wanted})
    except Exception as exc:  # the other parts shall be measured all the same
        traceback.print_exc()
        reason = f"{type(exc).__name__}: {exc}"
        found = [Row(PARTS[part], "failed", "measured", False, reason)]
    rows, text = (found, "") if isinstance(found, list) else (found.rows, found.text)
    return Result(part, rows, text, time.perf_counter() - start)


def run_apart(part: str, values: dict[str, Any]) -> Result:
    """`run_part` in a fresh process: threads and memory of one part do not touch the next."""
    context = multiprocessing.get_context("spawn")
    try:
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            return pool.submit(run_part, part, values).result()
    except Exception as exc:  # the process was killed, or what it found cannot be sent
        failed = Row(PARTS[part], "failed", "measured", False, f"{type(exc).__name__}: {exc}")
        return Result(part, [failed], "", 0.0)


def header(options: Options) -> str:
    """When, where, on what and with which versions."""
    libraries = ", ".join(f"{name} {version(name)}" for name in LIBRARIES)
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    peers = "with fastdup 2.54" if options.fastdup else "fastdup not run"
    size = "; quick: smaller sizes than promised" if options.quick else ""
    return (
        f"Measured {datetime.now(UTC):%Y-%m-%d %H:%M} UTC on {machine()}; {libraries}; {peers}; "
        f"load at the start {load}{size}."
    )


def measure_all(options: Options, work: Path) -> tuple[bool, str]:
    """Measure the parts one after the other; whether all hold, and the Markdown of the section."""
    head = header(options)
    print(head, flush=True)
    results = []
    values = {
        "dev": options.dev,
        "work": work,
        "quick": options.quick,
        "fastdup": options.fastdup,
        "other": options.other,
    }
    for part in options.parts:
        print(f"\n{PARTS[part]} ...", flush=True)
        results.append(run_apart(part, values))
        print(f"{results[-1].section()} Load {os.getloadavg()[0]:.1f}.", flush=True)
    rows = [row for result in results for row in result.rows]
    missed = sum(row.holds is False for row in rows)
    marked = sum(row.holds is not None for row in rows)
    load = f"Load at the end {os.getloadavg()[0]:.1f}."
    summary = f"{marked - missed} of {marked} rows with a mark hold. {load}"
    print(f"\n{summary}", flush=True)
    sections = [result.section() for result in results]
    return all_hold(rows), "\n\n".join([INTRODUCTION, head, *sections, summary])


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; the exit code."""
    options = read_options(arguments)
    missing = [part for part in options.parts if find_spec(f"tests.benchmarks.{part}") is None]
    if missing:
        print(f"Missing below tests/benchmarks: {', '.join(missing)}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="stillwatch-issue3-") as scratch:
        work = options.work or Path(scratch)
        work.mkdir(parents=True, exist_ok=True)
        holds, section = measure_all(options, work)
    if options.out is not None:
        page = options.out.read_text(encoding="utf-8")
        options.out.write_text(replace_section(page, section), encoding="utf-8")
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
