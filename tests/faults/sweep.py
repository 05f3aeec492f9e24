"""Kill, EIO and ENOSPC at every call that changes a file, in every operation that changes files.

    python -m tests.faults.sweep
    python -m tests.faults.sweep --operation move --operation trash --attack kill

Prints how many points were hit for each operation and attack, and ends with 1 when a file was
lost or double, an operation was left half done, or a row did not say what lies on disk. Needs gcc;
without root the operations that need a second filesystem are left out, which is said.
"""

import argparse
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Final

from tests.faults.injection import Faults, missing

MEMORY: Final = Path("/dev/shm")
"""A process that is killed, unlike a machine, needs no disk."""
THOROUGH: Final = ("move", "trash", "delete")
"""Operations that the test suite kills at every point."""
SAMPLE: Final = 23
"""Of the others it takes every so-manieth point."""
MOUNTING: Final = ("move-across", "move-bound", "undo-across", "undo-bound")


@dataclass(frozen=True, slots=True)
class Task:
    """One operation under one attack; every `step`-th point."""

    operation: str
    attack: str
    step: int = 1

    def arguments(self) -> list[str]:
        """For the worker."""
        return [self.operation, self.attack, str(self.step)]


def main() -> int:
    """Entry point of the command."""
    options = _options()
    if options.worker:
        return _work(Path(options.worker))
    reason = missing()
    if reason is not None:
        print(reason, file=sys.stderr)
        return 1
    tasks = _tasks(options)
    began = time.monotonic()
    print(f"{'operation':18} {'attack':15} {'points':>6} {'wrong':>6} {'seconds':>8}", flush=True)
    found = _run(tasks, options.jobs)
    _sum_up(found, time.monotonic() - began)
    whole = len(found) == len(tasks)
    return 0 if whole and not any(row["failures"] for row in found) else 1


def _options() -> argparse.Namespace:
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("--operation", action="append", help="one of them (default: all)")
    parser.add_argument("--attack", action="append", help="one of them (default: all)")
    parser.add_argument("--step", type=int, default=1, help="every so-manieth point only")
    parser.add_argument("--sample", action="store_true", help="a few points of every operation")
    parser.add_argument("--list", action="store_true", help="name operations and attacks")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    return parser.parse_args()


def _tasks(options: argparse.Namespace) -> list[Task]:
    from tests.faults.operations import OPERATIONS
    from tests.faults.points import ATTACKS

    attacks = [attack.name for attack in ATTACKS]
    if options.list:
        print("operations:", *OPERATIONS, "\nattacks:", *attacks)
        sys.exit()
    chosen = options.operation or list(OPERATIONS)
    unknown = {*chosen} - {*OPERATIONS} | {*(options.attack or [])} - {*attacks}
    if unknown:
        sys.exit(f"there is no {', '.join(sorted(unknown))}: see --list")
    if os.geteuid() != 0:
        print("without root: no second filesystem, so not", *MOUNTING, file=sys.stderr)
        chosen = [name for name in chosen if name not in MOUNTING]
    if options.sample:
        return sample(chosen, attacks)
    return [Task(o, a, options.step) for o in chosen for a in options.attack or attacks]


def sample(operations: Sequence[str], attacks: Sequence[str]) -> list[Task]:
    """A few points of each operation; the attacks take turns, so each is made on many of them."""
    return [
        Task(name, attacks[number % len(attacks)], SAMPLE) for number, name in enumerate(operations)
    ]


def _run(tasks: Sequence[Task], jobs: int) -> list[dict[str, Any]]:
    """The results, as they come; each is printed at once."""
    waiting: SimpleQueue[Task] = SimpleQueue()
    for task in tasks:
        waiting.put(task)
    found: list[dict[str, Any]] = []
    threads = [
        threading.Thread(target=_feed, args=(waiting, found, len(tasks)))
        for _ in range(min(jobs, len(tasks)))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def _feed(waiting: SimpleQueue[Task], found: list[dict[str, Any]], total: int) -> None:
    """One worker process, as long as there is something to do."""
    memory = MEMORY if os.access(MEMORY, os.W_OK) else None
    base = Path(tempfile.mkdtemp(prefix="stillwatch-sweep-", dir=memory))
    faults = Faults(base / "faults.page")
    single = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    try:
        worker = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.sweep", "--worker", str(base)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | faults.environment() | single,
        )
        with worker:
            if worker.stdin is None or worker.stdout is None:
                raise RuntimeError("the worker was started without pipes")
            while True:
                try:
                    task = waiting.get_nowait()
                except Empty:
                    worker.stdin.close()
                    return
                worker.stdin.write(" ".join(task.arguments()) + "\n")
                worker.stdin.flush()
                line = worker.stdout.readline()
                if not line:
                    return  # it said why on stderr; a result is missing, so the sweep has failed
                row = json.loads(line)
                found.append(row)
                print(
                    f"{row['operation']:18} {row['attack']:15} {row['points']:6}"
                    f" {len(row['failures']):6} {row['seconds']:8.1f}",
                    flush=True,
                )
                _tell(f"{len(found)} of {total}")
    finally:
        shutil.rmtree(base, ignore_errors=True)


def _tell(words: str) -> None:
    if sys.stderr.isatty():
        print(f"\033[K{words}", end="\r", file=sys.stderr, flush=True)


def _work(base: Path) -> int:
    """The worker: one task a line on stdin, one result a line on stdout."""
    from tests.faults.loop_disk import leave_the_others
    from tests.faults.operations import OPERATIONS
    from tests.faults.points import ATTACKS, sweep

    logging.disable(logging.CRITICAL)  # what fails is meant to
    if os.geteuid() == 0:
        leave_the_others()  # so that its mounts end with it
    faults = Faults(base / "faults.page")
    attacks = {attack.name: attack for attack in ATTACKS}
    made: dict[str, Any] = {}
    for line in sys.stdin:
        name, attack, step = line.split()
        place = base / name
        if name not in made:
            made[name] = OPERATIONS[name](place)
        done = sweep(name, made[name], attacks[attack], faults, place, step=int(step))
        row = {
            "operation": name,
            "attack": attack,
            "points": done.points,
            "failures": done.failures,
            "seconds": round(done.seconds, 1),
        }
        print(json.dumps(row), flush=True)
    return 0


def _sum_up(found: Sequence[dict[str, Any]], seconds: float) -> None:
    wrong = sum(len(row["failures"]) for row in found)
    points = sum(row["points"] for row in found)
    print(f"{points} points hit, {wrong} with something lost or wrong, {seconds:.0f} s")
    for row in found:
        for words in row["failures"][:3]:
            print(f"\n{row['operation']} {row['attack']}: {words}")


if __name__ == "__main__":
    sys.exit(main())
