"""A live ingest that is killed again and again, without a rest; nothing is lost on the way.

    python -m tests.faults.kill_loop --kills 1000 --work FOLDER [--seed 7] [--check-every 50]

A camera delivers all the time; an owner renames and deletes files; the real daemon records,
clusters, files, trashes and deletes with short times. SIGKILL comes at random moments: while it
starts, up to three seconds into its work, or aimed into a run that moves files. The state is never
made anew: what one kill leaves the next one finds. Every so many kills, and at the end, every
picture is looked for and I1 to I7 are proved. Prints where the kills struck; ends with 1 if
anything is lost.
"""

import argparse
import os
import random
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from tests.benchmarks.rows import Row, all_hold, table
from tests.benchmarks.week_live import settings
from tests.end_to_end.process import Daemon, Site, sha256
from tests.faults.camera import CameraProcess
from tests.faults.evidence import (
    BESIDE_OTHERS,
    Records,
    Strikes,
    broken_rules,
    counts,
    digests,
    forgotten,
    lost_pictures,
    newest_run,
    records,
    wait_for_moves,
    warm_up,
)

STARTING_SHARE, AIMED_SHARE = 0.4, 0.2
"""Shares of the kills that strike a start, or a run that moves files; the others anything."""
START_SECONDS: Final = 1.2
WORK_SECONDS: Final = 3.0
AIMED_SECONDS: Final = 20.0
"""An aimed kill waits so long for a run that moves files."""
INTO_SECONDS: Final = 0.05
OWNER_PAUSE_SECONDS: Final = 1.0
SETTLED_SECONDS: Final = 300.0
_SCANNED: Final = (
    "SELECT 1 FROM cameras, meta WHERE key = 'daemon'"
    " AND last_scan_at > json_extract(value, '$.started_at')"
)
SETTINGS: Final = settings(every_seconds=1.5, trash_seconds=4, delete_seconds=4, files=60) | {
    "clustering": {"first_at_frames": 60, "growth_share": 1.0}
}


class Owner(threading.Thread):
    """Renames one file after the other and deletes every fifth, filed ones, too."""

    def __init__(self, folder: Path, seed: int) -> None:
        super().__init__(name="owner")
        self._folder = folder
        self._chance = random.Random(seed)
        self._ended = threading.Event()
        self.deleted: set[str] = set()
        self.acts = 0

    def end(self) -> None:
        """Do nothing more."""
        self._ended.set()
        self.join()

    def run(self) -> None:
        while not self._ended.wait(OWNER_PAUSE_SECONDS):
            found = [path for path in self._folder.rglob("*.jpg") if not path.name.startswith(".")]
            if found:
                self._touch(self._chance.choice(found))

    def _touch(self, path: Path) -> None:
        """The daemon may be quicker and have moved it."""
        try:
            if self.acts % 5:
                path.rename(self._folder / f"owner-{self.acts:05d}.jpg")
            else:
                digest = sha256(path.read_bytes())
                path.unlink()
                self.deleted.add(digest)
        except FileNotFoundError:
            return
        self.acts += 1


@dataclass(slots=True)
class Outcome:
    """What the kills came to."""

    delivered: int = 0
    acts: int = 0
    deleted: int = 0
    checks: int = 0
    states: str = ""
    lost: list[str] = field(default_factory=list)
    forgotten: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    strikes: Strikes = field(default_factory=Strikes)

    @property
    def bad(self) -> int:
        """Losses and violations."""
        return len(self.lost) + len(self.forgotten) + len(self.broken)

    def rows(self, seconds: float) -> list[Row]:
        """The table of figures."""
        return [
            Row("kills", str(self.strikes.moments), "", None, str(self.strikes)),
            Row("files delivered", str(self.delivered), "", None, self.states),
            Row("owner's renames and deletions", str(self.acts), "", None),
            Row("of them deletions", str(self.deleted), "", None),
            Row("checks", str(self.checks), "", None),
            *(
                Row(name, str(len(found)), "0", not found, "; ".join(found[:3]))
                for name, found in (
                    ("files lost", self.lost),
                    ("committed records lost", self.forgotten),
                    ("violations of I1 to I7", self.broken),
                )
            ),
            Row("seconds", f"{seconds:.0f}", "", None),
        ]


class Loop:
    """The site, its camera and its owner, while daemons come and go."""

    def __init__(
        self, site: Site, listed: Path, seed: int, per_second: float, aimed_seconds: float
    ) -> None:
        self.site = site
        self._aimed_seconds = aimed_seconds
        self._chance = random.Random(seed)
        self._camera = CameraProcess(site.folder, listed, per_second)
        self._owner = Owner(site.folder, seed)
        self._seen = Records()
        self.outcome = Outcome()
        self._camera.start()
        self._owner.start()

    def kill_one(self) -> None:
        """Start a daemon and kill it."""
        newest = newest_run(self.site)
        daemon = Daemon(self.site, (), {}, (self.site.folder,))
        try:
            starting = self._live(daemon, newest)
            if daemon.process.poll() is not None:
                raise AssertionError(f"the daemon ended by itself: {daemon.said}")
        finally:
            daemon.kill()
        self.outcome.strikes.note(self.site, newest, starting=starting)
        now = records(self.site.state)
        self.outcome.forgotten += forgotten(self._seen, now)
        self._seen = now

    def _live(self, daemon: Daemon, newest: int) -> bool:
        """Let it live for a random time; whether it is still starting then."""
        kind = self._chance.random()
        if kind < STARTING_SHARE:
            time.sleep(self._chance.uniform(0, START_SECONDS))
            return "filing is o" not in daemon.said
        daemon.wait_until_ready()
        if kind < STARTING_SHARE + AIMED_SHARE:
            wait_for_moves(self.site, newest, self._aimed_seconds)
            time.sleep(self._chance.uniform(0, INTO_SECONDS))
        else:
            time.sleep(self._chance.uniform(0, WORK_SECONDS))
        return False

    def check(self) -> None:
        """Look for everything after a kill, as a start would find it."""
        delivered = self._camera.delivered()
        self.outcome.lost += self._lost(delivered)
        self.outcome.broken += broken_rules(self.site, BESIDE_OTHERS)
        self.outcome.checks += 1

    def _lost(self, delivered: dict[str, str]) -> list[str]:
        """What is nowhere; a file that the owner renamed while it was looked for is not lost."""
        for _ in range(3):
            missing = lost_pictures(self.site, delivered, self._owner.deleted)
            if not missing:
                return []
            delivered = {name: delivered[name] for name in missing}
        return missing

    def finish(self) -> Outcome:
        """No more files and no more kills: a last daemon brings everything to its end."""
        self._camera.end()
        self._owner.end()
        delivered, outcome = self._camera.delivered(), self.outcome
        outcome.delivered, outcome.acts = len(delivered), self._owner.acts
        outcome.deleted = len(self._owner.deleted)
        with self.site.daemon() as daemon:
            known = partial(_recorded, self.site, frozenset(delivered.values()))
            daemon.wait_until(known, "everything has a row", SETTLED_SECONDS)
            daemon.wait_until(
                lambda: self.site.table(_SCANNED), "every file was looked at", SETTLED_SECONDS
            )
        self.check()
        outcome.broken += broken_rules(self.site)
        outcome.states = counts(self.site)
        return outcome

    def close(self) -> None:
        """End what runs."""
        self._camera.end()
        self._owner.end()


def _recorded(site: Site, delivered: frozenset[str]) -> bool:
    """Whether each content that is on disk has a row; what was deleted unseen has none."""
    rows = site.table("SELECT hex(sha256) FROM frames WHERE sha256 IS NOT NULL")
    missing = delivered - {row[0].lower() for row in rows}
    if not missing:
        return True
    return not missing & digests(site.folder)


def run(
    work: Path,
    kills: int,
    seed: int,
    *,
    per_second: float,
    check_every: int,
    tell: bool,
    aimed_seconds: float = AIMED_SECONDS,
    warm: bool = True,
) -> Outcome:
    """All kills and checks. `warm`: not before frames are filed."""
    begun = time.monotonic()
    site = Site(work, SETTINGS)
    loop = Loop(site, work / "delivered.txt", seed, per_second, aimed_seconds)
    try:
        if warm:
            with site.daemon() as daemon:
                warm_up(site, daemon)
                daemon.kill()
        for number in range(1, kills + 1):
            loop.kill_one()
            if number % check_every == 0:
                loop.check()
                if tell:
                    seconds, bad = time.monotonic() - begun, loop.outcome.bad
                    print(f"{number}/{kills} kills, {bad} losses, {seconds:.0f} s", flush=True)
        return loop.finish()
    finally:
        loop.close()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults.kill_loop",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--work", type=Path, required=True, help="an empty folder")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--check-every", type=int, default=50)
    parser.add_argument("--per-second", type=float, default=8.0)
    chosen = parser.parse_args(arguments)
    if chosen.work.exists() and os.listdir(chosen.work):
        parser.error(f"{chosen.work} is not empty")
    begun = time.monotonic()
    outcome = run(
        chosen.work.resolve(),
        chosen.kills,
        chosen.seed,
        per_second=chosen.per_second,
        check_every=chosen.check_every,
        tell=True,
    )
    rows = outcome.rows(time.monotonic() - begun)
    print(table(rows))
    return 0 if all_hold(rows) else 1


if __name__ == "__main__":
    sys.exit(main())
