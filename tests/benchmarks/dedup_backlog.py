"""Whether judging keeps up with a fast camera, beside the ingest and everything else.

    python -m tests.benchmarks.dedup_backlog DEV_FOLDER WORK_FOLDER [--seconds 300] [--rate 30]

Copies of the road's frames, each with a few bytes of its own behind its end, are written at a
steady rate and in real time into the folder of a real daemon with default settings; an onlooker
counts what is recorded and what is judged. In a run of less than five minutes
`dedup.delay_seconds` is a fifth of it.
"""

import argparse
import os
import shutil
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from daemon.jobs.judging import JUDGE_AT
from tests.benchmarks.rows import Row, table
from tests.benchmarks.workload import Daemon, Onlooker, children_of, wait_until, write_settings

CAMERA: Final = "fixedcam_road"
RATE: Final = 30.0
DELAY_SECONDS: Final = 60.0
LAG_SECONDS: Final = 5.0
"""A file is recorded this soon after it was written: it settles for two seconds first."""
SPARE_SECONDS: Final = 60.0
"""How much older than the delay a frame that is not judged may get: frames are judged in heaps of
500, and a recluster may be under way."""
_STATE: Final = (
    "SELECT count(*), coalesce(sum(judged), 0),"
    " min(CASE WHEN NOT judged AND coalesce(duplicate_kind, '') <> 'exact' THEN recorded_at END)"
    " FROM frames WHERE stage = 'embedded'"
)


@dataclass(slots=True)
class Feed:
    """Writes pictures at a steady rate in a thread of its own."""

    pictures: Sequence[bytes]
    folder: Path
    rate: float
    seconds: float
    written: int = 0
    late: float = 0.0
    """Seconds by which the writer itself was behind, at most."""
    over: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Until the time is over."""
        start = time.monotonic()
        for number in range(int(self.rate * self.seconds)):
            due = start + number / self.rate
            if self.over.wait(max(0.0, due - time.monotonic())):
                return
            self.late = max(self.late, time.monotonic() - due)
            data = self.pictures[number % len(self.pictures)] + number.to_bytes(4, "big")
            temporary = self.folder / f"{_letters(number)}.jpg.part"
            temporary.write_bytes(data)
            temporary.rename(temporary.with_suffix(""))
            self.written = number + 1


@dataclass(frozen=True, slots=True)
class Seen:
    """The moment when the last file was written, and what it cost until then.

    `unrecorded`: files. `overdue`: seconds by which the oldest frame that is not judged is older
    than the delay, the worst of all looks. `cpu`: seconds of the daemon and its processes.
    """

    written: int
    unrecorded: int
    judged: int
    overdue: float
    cpu: float
    megabytes: float
    late: float


def measure(dev: Path, work: Path, seconds: float = 300.0, rate: float = RATE) -> list[Row]:
    """Feed for so many seconds and say what was behind at the end."""
    seen = feed(dev / CAMERA, work / "backlog", seconds, rate)
    a_core = 1000 / rate
    return [
        Row(
            f"road at {rate:.0f} a second for {seconds:.0f} s: files not recorded at the end",
            f"{seen.unrecorded} of {seen.written}",
            f"at most {rate * LAG_SECONDS:.0f}",
            seen.unrecorded <= rate * LAG_SECONDS,
            f"the writer itself was up to {seen.late:.1f} s late",
        ),
        Row(
            "age of the oldest frame not judged, beyond the delay",
            f"{seen.overdue:.0f} s",
            f"at most {SPARE_SECONDS:.0f} s",
            seen.overdue <= SPARE_SECONDS,
            f"{seen.judged} judged, in heaps of {JUDGE_AT} and more",
        ),
        Row(
            "CPU of ingest, clustering and judging a frame",
            f"{1000 * seen.cpu / max(1, seen.written):.1f} ms",
            f"below {2 * a_core:.0f} ms",
            1000 * seen.cpu / max(1, seen.written) < 2 * a_core,
            "two cores",
        ),
        Row("database and its log, at most", f"{seen.megabytes:.0f} MB", "", None),
    ]


def feed(source: Path, work: Path, seconds: float, rate: float) -> Seen:
    """One live run."""
    shutil.rmtree(work, ignore_errors=True)
    state, folder = work / "state", work / "road"
    folder.mkdir(parents=True)
    delay = min(DELAY_SECONDS, seconds / 5)
    write_settings(state, {"dedup": {"delay_seconds": delay}})
    pictures = [path.read_bytes() for path in sorted(source.rglob("*.jpg"))]
    feeding = Feed(pictures, folder, rate, seconds)
    writer = threading.Thread(target=feeding.run, name="feed")
    with Daemon(state, folder) as daemon:
        onlooker = Onlooker(state)
        ready = "SELECT 1 FROM cameras WHERE last_scan_at IS NOT NULL"
        wait_until(lambda: bool(onlooker.rows(ready)), "the daemon watches", 120)
        before = cpu_of(daemon.pid)
        writer.start()
        try:
            overdue = megabytes = 0.0
            recorded = judged = 0
            while writer.is_alive():
                writer.join(timeout=1.0)
                recorded, judged, oldest = onlooker.rows(_STATE)[0]
                if oldest is not None:
                    overdue = max(overdue, time.time() - oldest - delay)
                megabytes = max(megabytes, database_bytes(state) / 1e6)
            cpu = cpu_of(daemon.pid) - before
        finally:
            feeding.over.set()
            writer.join()
            onlooker.close()
    written = feeding.written
    return Seen(written, written - recorded, judged, overdue, cpu, megabytes, feeding.late)


def cpu_of(pid: int) -> float:
    """CPU seconds of a process, of its children that ended, and of those that live."""
    ticks = os.sysconf("SC_CLK_TCK")
    total = 0.0
    for process in (pid, *children_of(pid)):
        try:
            fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        except FileNotFoundError:
            continue  # it ended between the two looks: it is counted with its parent next time
        total += sum(int(value) for value in fields[11:15]) / ticks
    return total


def database_bytes(state: Path) -> int:
    """The database and its write-ahead log."""
    return sum(path.stat().st_size for path in state.glob("stillwatch.db*"))


def _letters(number: int) -> str:
    """The number in letters: a name without digits, so that the file's time gives the order."""
    return "".join(chr(ord("a") + int(digit)) for digit in f"{number:06d}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("dev", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--rate", type=float, default=RATE)
    chosen = parser.parse_args(arguments)
    rows = measure(chosen.dev, chosen.work, chosen.seconds, chosen.rate)
    print(table(rows))
    return 1 if any(row.holds is False for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
