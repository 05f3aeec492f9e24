"""Power cuts: a live site on a disk of its own, cut off at any moment, looked at afterwards.

    python -m tests.faults.power_cut --cuts 200 --work FOLDER [--seed 7] [--per-second 8]

Camera folder and state folder lie on an ext4 disk in a file (loop device, in a mount namespace of
its own). A camera delivers with fsync, the real daemon files, trashes and deletes with short times.
At a random moment, every second time aimed into a run that moves files, all of them are stopped
and the disk is copied as it is, without a sync: what the device had not got by then is gone. In the
copy must be every confirmed picture and every record that a reader could see, and after a recovery
I1 to I7 hold. At every fourth cut the site goes on with the copy, with a start of the daemon: the
traces of the cuts add up. FOLDER on a tmpfs is fastest. Needs root; ends with 1 if anything is
lost. It is no disk that loses what it confirmed.
"""

import argparse
import os
import random
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from tests.benchmarks.rows import Row, all_hold, table
from tests.benchmarks.week_live import settings
from tests.end_to_end.process import Daemon, Site, wait_until
from tests.faults.camera import CameraProcess, name_of
from tests.faults.evidence import (
    WITHOUT_A_SCAN,
    Records,
    Strikes,
    broken_rules,
    counts,
    forgotten,
    in_a_fork,
    lost_pictures,
    newest_run,
    records,
    wait_for_moves,
    warm_up,
)
from tests.faults.loop_disk import (
    copy_of_one_moment,
    leave_the_others,
    make_disk,
    mount,
    unmount,
    why_impossible,
)

MEGABYTES: Final = 1024
LATEST_SECONDS: Final = 2.5
"""A cut comes up to this long after the one before."""
AIMED_SECONDS: Final = 4.0
"""An aimed one waits so long for a run that moves files."""
INTO_SECONDS: Final = 0.04
RESTART_EVERY: Final = 4
SETTINGS: Final = settings(every_seconds=1.5, trash_seconds=4, delete_seconds=4, files=60) | {
    "clustering": {"first_at_frames": 60, "growth_share": 1.0}
}


@dataclass(slots=True)
class Outcome:
    """What the cuts came to."""

    cuts: int = 0
    restarts: int = 0
    copies: int = 0
    delivered: int = 0
    lost: list[str] = field(default_factory=list)
    forgotten: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    strikes: Strikes = field(default_factory=Strikes)
    open_operations: int = 0
    states: str = ""

    def take(self, answer: Sequence[str]) -> None:
        """Sort what a look at a copy found: `kind: words`."""
        for words in answer:
            kind, _, told = words.partition(": ")
            {"lost": self.lost, "forgotten": self.forgotten}.get(kind, self.broken).append(told)

    def rows(self, seconds: float) -> list[Row]:
        """The table of figures."""
        return [
            Row("cuts", str(self.cuts), "", None, f"{self.restarts} lived on, with a daemon start"),
            Row("struck", str(self.strikes.moments), "", None, str(self.strikes)),
            Row("open file operations at the cuts", str(self.open_operations), "", None),
            Row("copies until one was of one moment", str(self.copies), "", None),
            Row("files delivered", str(self.delivered), "", None, self.states),
            _none("files lost", self.lost),
            _none("committed records lost", self.forgotten),
            _none("violations of I1 to I7", self.broken),
            Row("seconds", f"{seconds:.0f}", "", None),
        ]


def _none(name: str, found: Sequence[str]) -> Row:
    return Row(name, str(len(found)), "0", not found, "; ".join(found[:3]))


class Machine:
    """The disk with the site on it, its camera and its daemon; `close` ends all three."""

    def __init__(self, work: Path, per_second: float) -> None:
        self.work = work
        self._images = [work / "live.img", work / "next.img"]
        place = work / "disk"
        place.mkdir(parents=True, exist_ok=True)
        make_disk(self._images[0], MEGABYTES)
        mount(self._images[0], place)
        self.site = Site(place, SETTINGS)
        for path in (self.site.config, self.site.folder, place):
            _confirm(path)
        self.camera = CameraProcess(self.site.folder, work / "delivered.txt", per_second)
        self.newest = 0
        self.daemon = self._start()

    @property
    def copy(self) -> Path:
        """Where the disk is copied to."""
        return self._images[1]

    def _start(self) -> Daemon:
        self.newest = newest_run(self.site)
        daemon = Daemon(self.site, (), {}, (self.site.folder,))
        try:
            daemon.wait_until_ready()
        except BaseException:
            daemon.kill()
            raise
        self.camera.start()
        return daemon

    def stop_time(self) -> None:
        """Stop camera and daemon with its children, at whatever they are doing."""
        for process in (self.camera.process, self.daemon.process):
            if process is not None:
                os.killpg(process.pid, signal.SIGSTOP)
                wait_until(partial(_stands, process.pid), "it stands still", 20)

    def go_on(self) -> None:
        """Let them go on as if nothing had been."""
        for process in (self.daemon.process, self.camera.process):
            if process is not None:
                os.killpg(process.pid, signal.SIGCONT)

    def copy_disk(self) -> int:
        """What the device has got; the number of tries."""
        return copy_of_one_moment(self._images[0], self.copy)

    def live_on_with_the_copy(self, before: Records) -> list[str]:
        """The power is back: only what was in the copy is there. What was lost, in words."""
        self.power_off()
        unmount(self.site.base)
        self._images.reverse()
        mount(self._images[0], self.site.base)
        problems = [f"forgotten: {words}" for words in forgotten(before, records(self.site.state))]
        delivered = self.camera.delivered()
        self.daemon = self._start()
        recorded = partial(_all_recorded, self.site, frozenset(delivered))
        self.daemon.wait_until(recorded, "what was confirmed before the cut has rows")
        return problems

    def power_off(self) -> None:
        """Kill everything."""
        self.camera.end()
        if self.daemon.process.poll() is None:
            os.killpg(self.daemon.process.pid, signal.SIGKILL)
        self.daemon.kill()

    def close(self) -> None:
        """End everything and release the disk."""
        self.power_off()
        unmount(self.site.base)


def _confirm(path: Path) -> None:
    """Have the disk confirm a file or folder: the settings shall outlive the cuts."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _stands(leader: int) -> bool:
    """Whether every thread of the process group of `leader` is stopped, or has ended."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            if os.getpgid(int(entry.name)) != leader:
                continue
            states = [
                (task / "stat").read_text().rpartition(")")[2].split()[0]
                for task in (entry / "task").iterdir()
            ]
        except (ProcessLookupError, FileNotFoundError):
            continue
        if not set(states) <= {"T", "t", "Z", "X"}:
            return False
    return True


def _all_recorded(site: Site, names: frozenset[str]) -> bool:
    rows = site.table("SELECT original_path FROM frames WHERE stage <> 'pending'")
    return names <= {os.fsdecode(row[0]) for row in rows}


def look_at(copy: Path, site: Site, before: Records, delivered: dict[str, str]) -> list[str]:
    """Mount a copy in the site's place, seen by this process only, recover it and examine it."""
    leave_the_others()
    mount(copy, site.base)
    try:
        problems = [f"forgotten: {words}" for words in forgotten(before, records(site.state))]
        problems += [f"lost: {name}" for name in lost_pictures(site, delivered)]
        last = max(delivered, default=name_of(0))
        number = int(last.split("-")[1].split(".")[0])
        flying = [name_of(number + step) for step in (0, 1)][1 if delivered else 0 :]
        problems += [f"rule: {words}" for words in broken_rules(site, WITHOUT_A_SCAN, but=flying)]
        problems += [f"lost: {name} after recovery" for name in lost_pictures(site, delivered)]
    finally:
        unmount(site.base)
    return problems


def cut(machine: Machine, outcome: Outcome, *, restart: bool) -> None:
    """One cut, and what it left."""
    machine.stop_time()
    delivered = machine.camera.delivered()
    before = records(machine.site.state)
    outcome.strikes.note(machine.site, machine.newest, starting=False)
    outcome.open_operations += before.open_operations
    outcome.copies += machine.copy_disk()
    outcome.cuts += 1
    if restart:
        outcome.restarts += 1
        outcome.take(machine.live_on_with_the_copy(before))
        return
    machine.go_on()
    outcome.take(in_a_fork(partial(look_at, machine.copy, machine.site, before, delivered)))


def run(work: Path, cuts: int, seed: int, per_second: float, *, warm: bool) -> Outcome:
    """All cuts, then an orderly stop and a last look. `warm`: not before frames are filed."""
    chance, outcome = random.Random(seed), Outcome()
    machine = Machine(work, per_second)
    begun = time.monotonic()
    try:
        if warm:
            warm_up(machine.site, machine.daemon)
        for number in range(cuts):
            if number % 2:
                wait_for_moves(machine.site, machine.newest, AIMED_SECONDS)
                time.sleep(chance.uniform(0, INTO_SECONDS))
            else:
                time.sleep(chance.uniform(0, LATEST_SECONDS))
            cut(machine, outcome, restart=number % RESTART_EVERY == RESTART_EVERY - 1)
            if number % 10 == 9:
                _tell(outcome, machine, cuts, time.monotonic() - begun)
        _finish(machine, outcome)
    finally:
        machine.close()
    return outcome


def _finish(machine: Machine, outcome: Outcome) -> None:
    machine.camera.end()
    delivered = machine.camera.delivered()
    outcome.delivered = len(delivered)
    recorded = partial(_all_recorded, machine.site, frozenset(delivered))
    machine.daemon.wait_until(recorded, "everything is recorded")
    machine.daemon.stop()
    outcome.states = counts(machine.site)
    outcome.take([f"lost: {name}" for name in lost_pictures(machine.site, delivered)])
    outcome.take([f"rule: {words}" for words in broken_rules(machine.site)])


def _tell(outcome: Outcome, machine: Machine, cuts: int, seconds: float) -> None:
    bad = len(outcome.lost) + len(outcome.forgotten) + len(outcome.broken)
    print(
        f"{outcome.cuts}/{cuts} cuts, {len(machine.camera.delivered())} delivered,"
        f" {bad} losses or violations, {seconds:.0f} s",
        flush=True,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults.power_cut",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--cuts", type=int, default=200)
    parser.add_argument("--work", type=Path, required=True, help="an empty folder; up to 2 GB")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--per-second", type=float, default=8.0)
    parser.add_argument("--cold", action="store_true", help="cut before anything is filed, too")
    chosen = parser.parse_args(arguments)
    reason = why_impossible()
    if reason is not None:
        print(f"This machine cannot do it: {reason}.", file=sys.stderr)
        return 2
    leave_the_others()
    begun = time.monotonic()
    work, warm = chosen.work.resolve(), not chosen.cold
    outcome = run(work, chosen.cuts, chosen.seed, chosen.per_second, warm=warm)
    rows = outcome.rows(time.monotonic() - begun)
    print(table(rows))
    return 0 if all_hold(rows) else 1


if __name__ == "__main__":
    sys.exit(main())
