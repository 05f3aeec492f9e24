"""Pictures a second: the bare loop, the product, fastdup; and the change test by itself."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Final

from daemon.ingest.settling import LOOKS_APART_SECONDS
from tests.benchmarks.ruler import Ruled, Ruler
from tests.benchmarks.workload import STEADY_SETTINGS, Daemon, Onlooker, wait_until, write_settings

FLOAT: Final = "efficientnet_lite0"
INT8: Final = "efficientnet_lite0_int8"
ROUNDS: Final = 3
THREADS: Final = 2
FASTDUP_CODE: Final = (
    "import sys, time, fastdup\n"
    "start = time.perf_counter()\n"
    "code = fastdup.run(input_dir=sys.argv[1], work_dir=sys.argv[2], run_mode=1)\n"
    "print('seconds', code, time.perf_counter() - start, fastdup.__version__)\n"
)
"""Mode 1 is the feature extraction without the search for neighbours."""


@dataclass(slots=True)
class Series:
    """Pictures a second of one contestant, a value each round."""

    name: str
    rates: list[float] = field(default_factory=list)
    steady: bool = True

    @property
    def middle(self) -> float:
        """The median."""
        return median(self.rates)

    def against(self, other: "Series") -> float:
        """The median of the ratios within one round."""
        return median(a / b for a, b in zip(self.rates, other.rates, strict=True))


@dataclass(frozen=True, slots=True)
class WholeRun:
    """`run --once`: seconds from the command to its end, of them the jobs, and frames judged."""

    total: float
    recluster: float
    dedup: float
    frames: int


def bare(pictures: Path, encoder: str, count: int) -> float:
    """Pictures a second of the bare loop, see `bare_loop`."""
    command = [sys.executable, "-m", "tests.benchmarks.bare_loop", str(pictures), encoder]
    done = subprocess.run(
        [*command, str(THREADS)], capture_output=True, text=True, check=True, timeout=600
    )
    return count / float(done.stdout.split()[-1])


def product(pictures: Path, state: Path, encoder: str, count: int) -> float:
    """Pictures a second of the daemon: from the first settled file to the last committed row.

    Old files settle when two looks `LOOKS_APART_SECONDS` apart agree; the row of the first look
    carries its time. The end is when an onlooker sees the last row.
    """
    shutil.rmtree(state, ignore_errors=True)
    write_settings(state, {**STEADY_SETTINGS, "encoder": {"id": encoder, "threads": THREADS}})
    with Daemon(state, pictures):
        onlooker = Onlooker(state)
        wait_until(lambda: onlooker.all_recorded(count), "every picture is recorded")
        end = time.time()
        first_look = float(onlooker.rows("SELECT min(arrived_at) FROM frames")[0][0])
        onlooker.close()
    return count / (end - first_look - LOOKS_APART_SECONDS)


def fastdup(python: Path, pictures: Path, work: Path, count: int) -> float:
    """Pictures a second of fastdup's feature extraction, its import not counted."""
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    environment = dict(os.environ) | {"SENTRY_OPT_OUT": "1", "HOME": str(work)}
    done = subprocess.run(
        [str(python), "-c", FASTDUP_CODE, str(pictures), str(work / "out")],
        env=environment,
        cwd=work,
        capture_output=True,
        text=True,
        timeout=600,
    )
    words = done.stdout.rpartition("seconds ")[2].split()
    if done.returncode != 0 or words[:1] != ["0"]:
        raise SystemExit(f"fastdup failed: {done.stderr[-500:]}")
    return count / float(words[1])


def contest(
    ruler: Ruler,
    pictures: Path,
    scratch: Path,
    count: int,
    python: Path | None,
    say: Callable[[str], None],
) -> dict[str, Series]:
    """All contestants in alternating rounds, each measurement between two readings."""
    runners: dict[str, Callable[[], float]] = {
        "bare float32": lambda: bare(pictures, FLOAT, count),
        "product float32": lambda: product(pictures, scratch / "state", FLOAT, count),
        "bare int8": lambda: bare(pictures, INT8, count),
        "product int8": lambda: product(pictures, scratch / "state", INT8, count),
    }
    if python is not None:
        runners["fastdup"] = lambda: fastdup(python, pictures, scratch / "fastdup", count)
    series = {name: Series(name) for name in runners}
    for number in range(1, ROUNDS + 1):
        for name, run in runners.items():
            ruled: Ruled[float] = ruler.rule(run)
            series[name].rates.append(ruled.value)
            series[name].steady &= ruled.steady
            say(f"round {number}: {name} {ruled.value:.1f} images/s ({ruled.after.text()})")
    return series


def whole_run(pictures: Path, state: Path) -> WholeRun:
    """`run --once` over the same pictures, with all its jobs."""
    shutil.rmtree(state, ignore_errors=True)
    write_settings(state, {"cameras": {"by_subfolder": True}})
    start = time.perf_counter()
    with Daemon(state, pictures, "--once") as daemon:
        printed, _ = daemon.process.communicate(timeout=900)
        total = time.perf_counter() - start
    status = json.loads(printed)
    return WholeRun(
        total=total,
        recluster=float(status["last_recluster"]["seconds"]),
        dedup=float(status["last_dedup"]["seconds"]),
        frames=int(status["frames"]["total"]),
    )
