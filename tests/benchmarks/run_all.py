"""Measures everything that the project promises about speed and memory, and says if it holds.

    python tests/benchmarks/run_all.py DEV_FOLDER [--fastdup PYTHON] [--out docs/benchmarks.md]

DEV_FOLDER holds a folder of JPEG files for each camera. PYTHON is the interpreter of an
environment with `fastdup==2.54`; without it that comparison is left out. `--quick` measures the
latency with 60 files instead of 600. Ends with 1 where a mark is missed.
"""

import argparse
import os
import platform
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from daemon.encoders import registry
from tests.benchmarks import ingest, resources
from tests.benchmarks.page_section import keep_sections
from tests.benchmarks.report import Mark, Report
from tests.benchmarks.ruler import Ruler
from tests.benchmarks.workload import copy_pictures

PARTS: Final = ("ingest", "memory", "commands", "latency")
INGEST_COUNT: Final = 1000
KNOWN_COUNT: Final = 3000
SETTLE_SECONDS: Final = 2.0


@dataclass(frozen=True)
class Options:
    """The command line."""

    dev: Path
    fastdup: Path | None
    out: Path | None
    latency_files: int
    idle_seconds: float
    parts: Sequence[str]


def read_options(arguments: Sequence[str]) -> Options:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("dev", type=Path, metavar="DEV_FOLDER")
    parser.add_argument("--fastdup", type=Path, metavar="PYTHON")
    parser.add_argument("--out", type=Path, metavar="FILE.md")
    parser.add_argument("--latency-files", type=int, default=600)
    parser.add_argument("--idle-seconds", type=float, default=60.0)
    parser.add_argument("--quick", action="store_true", help="60 files for the latency")
    parser.add_argument("--only", choices=PARTS, nargs="+", default=PARTS)
    chosen = parser.parse_args(arguments)
    files = 60 if chosen.quick else chosen.latency_files
    return Options(chosen.dev, chosen.fastdup, chosen.out, files, chosen.idle_seconds, chosen.only)


def measure_ingest(options: Options, scratch: Path, ruler: Ruler, report: Report) -> None:
    """Pictures a second against the bare loop and fastdup."""
    pictures = scratch / "pictures"
    copy_pictures(options.dev, pictures, INGEST_COUNT, cameras_only=True)
    python = options.fastdup
    series = ingest.contest(ruler, pictures, scratch, INGEST_COUNT, python, report.say)
    report.series(series.values())
    floats, ints = series["product float32"], series["product int8"]
    against = [
        ("product / bare loop, float32", floats, "bare float32", 0.70),
        ("product / bare loop, int8", ints, "bare int8", None),
        ("product float32 / fastdup", floats, "fastdup", 0.7),
        ("product int8 / fastdup", ints, "fastdup", 1.2),
    ]
    for name, mine, other, least in against:
        if other in series:
            report.mark(Mark(name, mine.against(series[other]), "", at_least=least))
    whole = ruler.rule(lambda: ingest.whole_run(pictures, scratch / "state")).value
    jobs = whole.recluster + whole.dedup
    report.mark(Mark("`run --once`, all of it", whole.total, "s"))
    report.mark(Mark("`run --once` without recluster and dedup", whole.total - jobs, "s"))
    report.mark(Mark("change test alone", whole.frames / whole.dedup, "frames/s"))


def measure_memory(options: Options, scratch: Path, state: Path, report: Report) -> None:
    """The daemon with many frames known."""
    pictures = scratch / "known"
    copy_pictures(options.dev, pictures, KNOWN_COUNT, cameras_only=False)
    found = resources.footprint(pictures, state, KNOWN_COUNT, options.idle_seconds)
    known = f"{found.frames:,} frames known"
    report.mark(Mark(f"daemon RSS, {known}", found.known_rss, "MB", at_most=450))
    report.mark(Mark(f"daemon RSS at its peak, {known}", found.known_peak, "MB", at_most=450))
    report.mark(
        Mark("daemon RSS at its peak, taking them in", found.taking_in_peak, "MB", at_most=450)
    )
    report.mark(Mark("decode children RSS, together", found.children_rss, "MB"))
    seconds = f"over {options.idle_seconds:g} s"
    report.mark(Mark(f"idle CPU, {seconds}", 100 * found.idle_cpu, "%", at_most=2))
    report.mark(Mark(f"idle CPU of the children, {seconds}", 100 * found.children_idle_cpu, "%"))


def measure_latency(options: Options, scratch: Path, report: Report) -> None:
    """From a whole file to a committed row."""
    pictures = copy_pictures(
        options.dev, scratch / "arriving", options.latency_files, cameras_only=True
    )
    found = resources.latency(pictures, scratch / "live", SETTLE_SECONDS)
    title = f"whole file to row, above settle_seconds, {len(pictures)} files"
    report.mark(Mark(f"{title}, p50", found.quantile(0.50), "s"))
    report.mark(Mark(f"{title}, p95", found.quantile(0.95), "s", at_most=0.5))
    report.mark(Mark(f"{title}, slowest", found.quantile(1.0), "s"))


def measure(options: Options, scratch: Path, report: Report) -> None:
    """Every part that was asked for."""
    ruler, state = Ruler(), scratch / "known-state"
    report.reading("at the start", ruler.read())
    if "ingest" in options.parts:
        measure_ingest(options, scratch, ruler, report)
        report.reading("after the ingest", ruler.read())
    if "memory" in options.parts:
        measure_memory(options, scratch, state, report)
    if "commands" in options.parts:
        if not state.exists():
            raise SystemExit("`commands` needs the state folder of `memory`: ask for both")
        for command, seconds in resources.starts(state).items():
            name = f"`{command}`, best of {resources.STARTS}"
            report.mark(Mark(name, seconds, "s", at_most=0.35))
    if "latency" in options.parts:
        measure_latency(options, scratch, report)
    report.reading("at the end", ruler.read())


def machine() -> str:
    """What the figures were taken on."""
    model = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    cores = len(os.sched_getaffinity(0))
    return f"{cores} cores of {model}, Linux {platform.release()}, Python {sys.version.split()[0]}"


def main() -> int:
    """Entry point; the exit code."""
    options = read_options(sys.argv[1:])
    for encoder in (ingest.FLOAT, ingest.INT8):
        registry.prepare(encoder, registry.default_cache_dir(), lambda _s, _d, _t: None)
    report = Report(machine(), datetime.now(UTC))
    with tempfile.TemporaryDirectory(prefix="stillwatch-benchmark-") as folder:
        measure(options, Path(folder), report)
    report.say(report.text())
    if options.out is not None:
        old = options.out.read_text(encoding="utf-8") if options.out.exists() else ""
        options.out.write_text(keep_sections(old, report.page()), encoding="utf-8")
    return 0 if report.holds else 1


if __name__ == "__main__":
    sys.exit(main())
