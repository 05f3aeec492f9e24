"""Files a second that the daemon takes in, with and without a big recluster beside it.

    python -m tests.benchmarks.ingest_during_recluster DEV_FOLDER [--quick]

The state folder holds planted frames (100,000; --quick 20,000), the daemon watches an empty
folder. Each round moves real pictures in at once, first alone, then while one recluster follows
the other, publication and all. Then `status --json` is asked again and again, idle and beside a
recluster.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any, Final

from sqlalchemy import update

from daemon.encoders import registry
from storage import meta
from storage.database_file import sqlite_driver
from storage.engine import Database
from storage.models import Space
from tests.benchmarks.full_state import ENCODER, fill_state
from tests.benchmarks.rows import Row, table
from tests.benchmarks.workload import (
    STEADY_SETTINGS,
    Daemon,
    Onlooker,
    copy_pictures,
    usage,
    wait_until,
    write_settings,
)

FRAMES: Final = 100_000
QUICK_FRAMES: Final = 20_000
ROUNDS: Final = 2
PICTURES: Final = 1_500
"""Some fifteen seconds of work."""
QUICK_PICTURES: Final = 500
STAGES: Final = ("measuring clusters", "copying vectors")
"""Where the recluster is when a round's pictures come: publication and indexing, or clustering."""
DIFFERENT: Final = 300
"""Real pictures; the others are these with a few bytes behind their end."""
ANSWERS: Final = 50
LEAST_SHARE: Final = 0.60


def make_state(state: Path, frames: int) -> None:
    """A state folder of planted frames that the real encoder goes on with."""
    cache = registry.default_cache_dir()
    if not registry.is_prepared(ENCODER, cache):
        registry.prepare(ENCODER, cache, lambda *_: None)
    encoder = registry.load(ENCODER, cache, 1)
    fill_state(state, frames)
    database = Database(state)
    try:
        with database.write() as connection:
            names = {"name": encoder.space, "weights_sha256": encoder.weights_sha256}
            connection.execute(update(Space).where(Space.id == 1).values(**names))
            meta.put(connection, "space", {"id": 1, "name": encoder.space})
    finally:
        encoder.close()
        database.close()


def ask(state: Path, *arguments: str) -> str:
    """One command of the program, which must end with 0; what it prints."""
    command = [sys.executable, "-m", "cli.main", "--state", str(state), "--json", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=900).stdout


def request_recluster(state: Path) -> int:
    """Ask the daemon as the command line does; the number of the request."""
    path = state / "stillwatch.db"
    connection = sqlite_driver().connect(str(path), timeout=60, isolation_level=None)
    try:
        cursor = connection.execute(
            "INSERT INTO requests (kind, arguments, actor, state, created_at)"
            " VALUES ('recluster', '{}', 'benchmark', 'queued', ?)",
            (time.time(),),
        )
        return int(cursor.lastrowid)
    finally:
        connection.close()


@contextmanager
def reclustering(state: Path, onlooker: Onlooker, stage: str) -> Iterator[None]:
    """One recluster after the other; begins when the first has come to a stage."""
    over = threading.Event()
    made = [request_recluster(state)]

    def go_on() -> None:
        own = Onlooker(state)
        done = "SELECT 1 FROM requests WHERE id = ? AND state = 'done'"
        while not over.wait(0.1):
            if own.rows(done, (made[-1],)):
                made.append(request_recluster(state))
        wait_until(lambda: bool(own.rows(done, (made[-1],))), "the last recluster has ended")
        own.close()

    thread = threading.Thread(target=go_on)
    thread.start()
    begun = "SELECT 1 FROM meta WHERE key = 'job' AND json_extract(value, '$.stage') = ?"
    wait_until(lambda: bool(onlooker.rows(begun, (stage,))), f"the recluster is {stage}")
    try:
        yield
    finally:
        over.set()
        thread.join()


def take_in(onlooker: Onlooker, folder: Path, originals: list[Path], numbers: range) -> float:
    """Deliver pictures, one a number, at once; files a second from the first row to the last."""
    pictures = [_picture(originals, folder.parent, number) for number in numbers]
    before = onlooker.rows("SELECT count(*) FROM frames")[0][0]
    newest = onlooker.rows("SELECT max(id) FROM frames")[0][0]
    for picture in pictures:
        picture.rename(folder / picture.name)
    wait_until(lambda: onlooker.all_recorded(before + len(pictures)), "all are recorded")
    times = [
        row[0]
        for row in onlooker.rows(
            "SELECT recorded_at FROM frames WHERE id > ? ORDER BY recorded_at", (newest,)
        )
    ]
    rate: float = (len(times) - times.count(times[0])) / (times[-1] - times[0])
    return rate


def _picture(originals: list[Path], place: Path, number: int) -> Path:
    """A picture that no other number has: bytes behind the end of a JPEG change nothing in it."""
    data = originals[number % len(originals)].read_bytes()
    path = place / f"{number:06d}.jpg"
    path.write_bytes(data + number.to_bytes(4, "big"))
    return path


def answer_seconds(state: Path, count: int) -> list[float]:
    """Seconds of `status --json` from start to end, ascending."""
    seconds = []
    for _ in range(count):
        begun = time.perf_counter()
        ask(state, "status")
        seconds.append(time.perf_counter() - begun)
    return sorted(seconds)


def measure(dev: Path, work: Path, quick: bool) -> list[Row]:
    """The rows of this part.

    Args:
        dev: The folder of real pictures.
        work: Where the state folder and the pictures go for the time.
        quick: Fewer frames and pictures, one round.
    """
    place = work / "ingest_during_recluster"
    shutil.rmtree(place, ignore_errors=True)
    rounds = 1 if quick else ROUNDS
    count = QUICK_PICTURES if quick else PICTURES
    frames = QUICK_FRAMES if quick else FRAMES
    state, folder = place / "state", place / "camera"
    folder.mkdir(parents=True)
    write_settings(state, dict(STEADY_SETTINGS) | {"cameras": {"by_subfolder": False}})
    make_state(state, frames)
    originals = copy_pictures(dev, place / "originals", DIFFERENT, cameras_only=True)
    try:
        return _measure(state, folder, originals, rounds, count, frames)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _measure(
    state: Path, folder: Path, originals: list[Path], rounds: int, count: int, frames: int
) -> list[Row]:
    batches = iter([range(at, at + count) for at in range(0, 2 * rounds * count, count)])
    alone, beside, published = [], [], 0
    ask(state, "recluster")  # the planted clusters were never measured
    with Daemon(state, folder) as daemon:
        onlooker = Onlooker(state)
        scanned = "SELECT 1 FROM cameras WHERE id > 4 AND last_scan_at IS NOT NULL"
        wait_until(lambda: bool(onlooker.rows(scanned)), "the daemon watches", 60)
        for number in range(rounds):
            alone.append(take_in(onlooker, folder, originals, next(batches)))
            with reclustering(state, onlooker, STAGES[number % len(STAGES)]):
                before = _generation(onlooker)
                beside.append(take_in(onlooker, folder, originals, next(batches)))
                published += _generation(onlooker) != before
            print(f"{alone[-1]:.1f} files/s alone, {beside[-1]:.1f} beside a recluster", flush=True)
        idle = answer_seconds(state, ANSWERS)
        with reclustering(state, onlooker, STAGES[0]):
            busy = answer_seconds(state, ANSWERS)
        memory = usage(daemon.pid)
        onlooker.close()
    load = os.getloadavg()[0]
    share = median(b / a for a, b in zip(alone, beside, strict=True))
    seconds = _published(state)
    return [
        Row(
            f"ingest while {frames:,} frames are reclustered, share of normal",
            f"{100 * share:.0f} %",
            f"at least {100 * LEAST_SHARE:.0f} %",
            share >= LEAST_SHARE,
            f"{median(beside):.0f} of {median(alone):.0f} files/s, {rounds} alternating rounds of"
            f" {count} pictures, publication inside {published} of them; load {load:.1f}",
        ),
        Row(
            "`status --json` beside a recluster, p50 / p99",
            f"{_share(busy, 0.5):.2f} / {_share(busy, 0.99):.2f} s",
            "report",
            None,
            f"idle {_share(idle, 0.5):.2f} / {_share(idle, 0.99):.2f} s",
        ),
        Row(
            "memory of the daemon after it, now / peak",
            f"{memory.rss:.0f} / {memory.peak:.0f} MB",
            "report",
            None,
            f"last clustering {seconds:.1f} s",
        ),
    ]


def _generation(onlooker: Onlooker) -> str:
    return str(onlooker.rows("SELECT value FROM meta WHERE key = 'generation'")[0][0])


def _share(ascending: list[float], share: float) -> float:
    return ascending[min(len(ascending) - 1, int(share * len(ascending)))]


def _published(state: Path) -> float:
    status: dict[str, Any] = json.loads(ask(state, "status"))
    return float(status["last_recluster"]["seconds"])


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser()
    parser.add_argument("dev", type=Path)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        print(table(measure(options.dev, Path(work), options.quick)))


if __name__ == "__main__":
    main()
