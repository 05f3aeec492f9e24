"""The index at a million vectors, and `similar` from a cold process.

    python -m tests.benchmarks.index_speed [--quick] [--work FOLDER]

The index is built and searched in processes of its own: what a search takes of its thread, what
the process holds that no file could give back, and how often the nearest vector is missed, against
a comparison with all of them. `similar` runs as a user would run it, over a real database.
"""

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from daemon.jobs.memory_peak import AnonymousMemoryPeak, anonymous_bytes
from daemon.jobs.neighbours import refresh_neighbours
from daemon.jobs.workshop import Workshop
from daemon.settings import Settings
from storage.engine import Database
from storage.projection import unit_length
from storage.vector_index import VectorIndex, id_digest
from tests.benchmarks.full_state import fill_state
from tests.benchmarks.planted import DIM, planted_set
from tests.benchmarks.rows import Row, all_hold, table

VECTORS, QUICK_VECTORS = 1_000_000, 60_000
STATE_FRAMES, QUICK_STATE_FRAMES = 100_000, 10_000
QUERIES: Final = 2_000
HELD_OUT: Final = 5_000
NEIGHBOURS: Final = 8
"""Asked for by the assignment."""
BLOCK: Final = 4_000
COLD_STARTS: Final = 7
P99_MS: Final = 10.0
AIM_MS: Final = 2.0
COLD_SECONDS: Final = 0.5
RECALL: Final = 0.999
MIB: Final = 1 << 20


def measure(work: Path, quick: bool) -> list[Row]:
    """Rows for the index and for `similar`; the planted sets stay in `work`."""
    count = QUICK_VECTORS if quick else VECTORS
    with tempfile.TemporaryDirectory(dir=work) as folder:
        scratch = Path(folder)
        built = _elsewhere(_build, work, scratch / "index", count)
        searched = _elsewhere(_search, work, scratch / "index", count)
        rows = _index_rows(count, built, searched)
        frames = QUICK_STATE_FRAMES if quick else STATE_FRAMES
        rows += _similar_rows(scratch / "state", frames)
    return rows


def _elsewhere(task: Any, work: Path, path: Path, count: int) -> dict[str, float]:
    """Run a task in a fresh process; adds the peak of its anonymous memory in MB."""
    spawn = multiprocessing.get_context("spawn")
    with AnonymousMemoryPeak() as peak, ProcessPoolExecutor(1, mp_context=spawn) as pool:
        peak.watch(pool.submit(os.getpid).result())
        found: dict[str, float] = pool.submit(task, work, path, count).result()
    return found | {"peak": peak.bytes / MIB}


def _ids(count: int) -> NDArray[np.int64]:
    return np.arange(count, dtype=np.int64) * 2 + 7


def _build(work: Path, path: Path, count: int) -> dict[str, float]:
    vectors = planted_set(work, count + HELD_OUT).vectors
    ids = _ids(count)

    def blocks() -> Iterator[tuple[NDArray[np.int64], NDArray[np.float16]]]:
        for start in range(0, count, BLOCK):
            stop = min(start + BLOCK, count)
            yield ids[start:stop], vectors[start:stop]

    wall, cpu = time.perf_counter(), time.process_time()
    VectorIndex.write(path, 1, DIM, blocks())
    return {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}


def _search(work: Path, path: Path, count: int) -> dict[str, float]:
    planted = planted_set(work, count + HELD_OUT)
    known = planted.labels[count:] >= 0
    queries = planted.vectors[count:][known][:QUERIES].astype(np.float32)
    digest = id_digest(_ids(count))
    before, start = anonymous_bytes(Path("/proc/self/status")), time.perf_counter()
    index = VectorIndex.read(path, 1, digest)
    if index is None:
        raise RuntimeError("the index that was just written is not served")
    opened = time.perf_counter() - start
    index.search(queries[:8], NEIGHBOURS)
    seconds, distances = [], []
    for query in queries:
        start = time.thread_time()
        distances.append(index.search(query[np.newaxis], NEIGHBOURS)[1][0, 0])
        seconds.append(time.thread_time() - start)
    held = anonymous_bytes(Path("/proc/self/status")) - before
    missed = np.array(distances) > _nearest(planted.vectors[:count], queries) + 2e-6
    return {
        "open": opened,
        "p50": 1000 * float(np.quantile(seconds, 0.5)),
        "p99": 1000 * float(np.quantile(seconds, 0.99)),
        "held": held / MIB,
        "recall": 1 - float(missed.mean()),
    }


def _nearest(vectors: NDArray[np.float16], queries: NDArray[np.float32]) -> NDArray[np.float32]:
    """Distance (m,) of each query to the nearest of all vectors."""
    unit = unit_length(queries)
    best = np.full(len(queries), -1, dtype=np.float32)
    for start in range(0, len(vectors), BLOCK):
        np.maximum(best, (unit @ unit_length(vectors[start : start + BLOCK]).T).max(axis=1), best)
    return 1 - best


def _index_rows(count: int, built: dict[str, float], found: dict[str, float]) -> list[Row]:
    among = f"among {count:,} vectors"
    return [
        Row(
            f"assignment of one frame {among}, thread CPU time, p99",
            f"{found['p99']:.2f} ms (p50 {found['p50']:.2f})",
            f"at most {P99_MS:g} ms (aim {AIM_MS:g})",
            found["p99"] <= P99_MS,
            f"search for {NEIGHBOURS} neighbours, exact distances, {QUERIES:,} queries",
        ),
        Row(
            f"nearest vector found {among}, frames of known scenes",
            f"{100 * found['recall']:.2f} %",
            f"at least {100 * RECALL:g} %",
            found["recall"] >= RECALL,
            "against a comparison with all of them",
        ),
        Row(f"anonymous memory of the open index {among}", f"{found['held']:.0f} MB", "", None),
        Row(f"opening the index {among}", f"{found['open']:.2f} s", "", None, "with its checksums"),
        Row(
            f"building the index {among}",
            f"{built['cpu']:.0f} CPU-s, {built['wall']:.0f} s",
            "",
            None,
            f"peak of anonymous memory {built['peak']:.0f} MB",
        ),
    ]


def _similar_rows(state: Path, frames: int) -> Iterator[Row]:
    fill_state(state, frames)
    start = time.perf_counter()
    database = Database(state)
    try:
        refresh_neighbours(Workshop(state, database, Settings()), 1)
    finally:
        database.close()
    building = time.perf_counter() - start
    pointer = json.loads((state / "neighbours" / "neighbours.json").read_text())
    for title, options in (
        ("`similar FRAME`", []),
        ("`similar FRAME --camera --since`", ["--camera", "east", "--since", "2026-01-03"]),
    ):
        seconds = sorted(_cold(state, frames, options) for _ in range(COLD_STARTS))
        yield Row(
            f"{title}, cold process, {frames:,} frames",
            f"{seconds[len(seconds) // 2]:.2f} s (best {seconds[0]:.2f})",
            f"at most {COLD_SECONDS:g} s",
            seconds[len(seconds) // 2] <= COLD_SECONDS,
            f"median of {COLD_STARTS}, load {os.getloadavg()[0]:.1f}",
        )
    yield Row(
        f"building its snapshot, {frames:,} frames, in its own process",
        f"{building:.0f} s",
        "",
        None,
        f"{pointer['backend']}, {pointer['index']['size'] / MIB:.0f} MB",
    )


def _cold(state: Path, frames: int, options: list[str]) -> float:
    """Seconds of one process, from its start to its end."""
    command = [sys.executable, "-m", "cli.main", "similar", f"f{frames // 3}", "-k", "10"]
    start = time.perf_counter()
    done = subprocess.run(
        [*command, *options, "--json", "--state", str(state)], capture_output=True, check=True
    )
    seconds = time.perf_counter() - start
    if len(done.stdout.splitlines()) != 10:
        raise RuntimeError(f"not ten answers: {done.stdout!r}")
    return seconds


def main() -> int:
    """Entry point; the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--work", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="stillwatch-index-") as folder:
        rows = measure(options.work or Path(folder), options.quick)
    print(table(rows))
    return 0 if all_hold(rows) else 1


if __name__ == "__main__":
    sys.exit(main())
