"""Folders that are swapped for symbolic links while files are moved through them.

    python -m tests.faults.symlink_race [--seconds 60] [--work FOLDER]

A process exchanges folders of a camera with links that lead out of it, as fast as the kernel lets
it, while pictures are filed, taken back, put into the trash, restored and deleted. Nothing outside
the camera may change, and every picture that was delivered is still there or has a record of its
deletion. Ends with 1 if that does not hold.
"""

import argparse
import hashlib
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from daemon.filing.apply import ApplyResult
from daemon.filing.job import file_frames
from daemon.filing.prune import PairTest, delete_run
from daemon.filing.prune_plan import entry_of
from daemon.filing.trash import restore_frame, trash_run
from daemon.filing.undo import undo_run
from daemon.settings import FilingSettings
from storage import runs
from storage.errors import StillwatchError
from storage.journal import recover
from storage.root_guard import load_roots
from storage.trash import RedundantFrame, frames_in_trash, redundant_frames
from tests.faults.injection import LIBRARIES
from tests.tools.filing_world import World, make_world

SOURCE: Final = Path(__file__).with_name("exchange.c")
EXCHANGED: Final = (
    "in",
    "stillwatch",
    "stillwatch/novel",
    "stillwatch/trash",
    "stillwatch/trash/.deleting",
)
"""Folders that become links: where pictures come from, and where they go to."""
ARRIVALS: Final = 20
AT_ONCE: Final = 10
"""Pictures of one operation, at most."""
SETTINGS: Final = FilingSettings()


@dataclass(slots=True)
class Figures:
    """What the race did; `done` and `refused`: pictures by kind of operation."""

    seconds: float = 0.0
    exchanges: int = 0
    delivered: int = 0
    deleted: int = 0
    lost: int = 0
    changed_outside: int = 0
    done: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)

    @property
    def holds(self) -> bool:
        """Whether nothing was lost and nothing outside was changed."""
        return self.lost == 0 and self.changed_outside == 0

    def lines(self) -> Iterator[str]:
        """The table of figures."""
        yield f"seconds                {self.seconds:12,.0f}"
        yield f"exchanges              {self.exchanges:12,}"
        for kind in sorted(self.done | self.refused):
            told = f"{self.done[kind]:12,} done {self.refused[kind]:12,} refused"
            yield f"  {kind:<21}{told}"
        yield f"files delivered        {self.delivered:12,}"
        yield f"files deleted by rule  {self.deleted:12,}"
        yield f"files lost             {self.lost:12,}"
        yield f"changed outside        {self.changed_outside:12,}"


class Race:
    """A camera, a folder outside of it that looks the same, and the process that exchanges."""

    def __init__(self, base: Path, seed: int = 7) -> None:
        self._world: World = make_world(base)
        self._outside = base / "outside"
        self._links = base / "links"
        self._counter = base / "counter"
        self._counter.write_bytes(bytes(8))
        self._random = random.Random(seed)
        self._figures = Figures()
        self._delivered: set[bytes] = set()
        self._keeper = self._frame("k.jpg")
        for number in range(ARRIVALS):
            self._frame(f"in/{number}.jpg", alarm=True)
        self._pairs = self._make_links()

    def _frame(self, name: str, **facts: object) -> int:
        content = b"picture %d" % self._figures.delivered
        self._figures.delivered += 1
        self._delivered.add(hashlib.sha256(content).digest())
        return self._world.frame(name, content, **facts)

    def _make_links(self) -> list[tuple[Path, Path]]:
        """Links out of the camera; where they lead are files of the names that are moved."""
        self._links.mkdir()
        pairs = []
        for number, name in enumerate(EXCHANGED):
            folder = self._world.folder / name
            folder.mkdir(parents=True, exist_ok=True)
            (folder / ".stays").touch()  # so that no emptied folder is removed
            link = self._links / str(number)
            link.symlink_to(self._outside)
            pairs.append((folder, link))
        for below in ("", "novel", "trash", "trash/.deleting"):
            for number in range(ARRIVALS):
                path = self._outside / below / f"{number}.jpg"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(b"picture %d" % (number + 1))  # the bytes of the one inside
        return pairs

    def run(self, seconds: float, report: Callable[[str], None]) -> Figures:
        """Race for so long, then put the folders back and look at everything."""
        outside = self._seen_outside()
        start = told = time.monotonic()
        with self._exchanging():
            while (now := time.monotonic()) - start < seconds:
                self._cycle()
                if now - told >= 5:
                    told = now
                    report(f"{now - start:.0f} s: {sum(self._figures.done.values()):,} moves")
        self._figures.seconds = time.monotonic() - start
        self._figures.exchanges = int.from_bytes(self._counter.read_bytes()[:8], sys.byteorder)
        self._figures.changed_outside = len(outside ^ self._seen_outside())
        self._put_back()
        with self._world.db.read() as connection:
            roots = load_roots(connection)
        recover(self._world.db, roots, self._world.clock(), at_start=True)
        self._count_lost()
        self._world.db.close()
        return self._figures

    @contextmanager
    def _exchanging(self) -> Iterator[None]:
        names = [str(path) for pair in self._pairs for path in pair]
        command = [str(compiled(SOURCE)), str(self._counter), *names]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "exchanging\n"
            yield
            assert process.poll() is None, "the exchanges have ended early"
        finally:
            process.kill()
            process.communicate()

    def _cycle(self) -> None:
        """Every operation once; which of them get through is a matter of luck."""
        facts = {"duplicate_kind": "near", "duplicate_of": self._keeper, "change_score": 1.0}
        for _ in range(AT_ONCE):
            self._frame(f"new-{self._figures.delivered}.jpg", **facts)
        self._attempt("file", self._file)
        self._attempt("trash", lambda: self._redundant("trash"))
        self._attempt("restore", self._restore)
        self._attempt("delete", lambda: self._redundant("prune"))
        self._attempt("undo", self._undo)

    def _attempt(self, kind: str, work: Callable[[], tuple[int, int]]) -> None:
        try:
            done, refused = work()
        except StillwatchError:
            done, refused = 0, 1
        self._figures.done[kind] += done
        self._figures.refused[kind] += refused

    def _file(self) -> tuple[int, int]:
        world = self._world
        return _counts(file_frames(world.db, SETTINGS, explicit=True, clock=world.clock).runs)

    def _redundant(self, kind: runs.RunKind) -> tuple[int, int]:
        """Frames to the trash, or from it for good."""
        world, read = self._world, redundant_frames if kind == "trash" else frames_in_trash
        chosen = self._some(read)
        action = "trash" if kind == "trash" else "delete"
        entries = [entry_of(frame, action, world.now) for frame in chosen]
        with world.db.write() as connection:
            run = runs.create_run(connection, kind, entries, now=world.clock())
        if kind == "trash":
            return _counts([trash_run(world.db, run, clock=world.clock)])
        tests = {
            frame.id: PairTest(keeper_id=frame.keeper_id, passed=True, reason="")
            for frame in chosen
        }
        return _counts([delete_run(world.db, run, tests, clock=world.clock)])

    def _some(self, read: Callable[..., list[RedundantFrame]]) -> list[RedundantFrame]:
        with self._world.db.read() as connection:
            known = read(connection)
        return self._random.sample(known, min(AT_ONCE, len(known)))

    def _restore(self) -> tuple[int, int]:
        chosen = self._some(frames_in_trash)[:1]
        for frame in chosen:
            restore_frame(self._world.db, frame.id, clock=self._world.clock)
        return len(chosen), 0

    def _undo(self) -> tuple[int, int]:
        with self._world.db.read() as connection:
            newest = "SELECT max(id) FROM runs WHERE kind = 'filing'"
            run = connection.exec_driver_sql(newest).scalar()
        if run is None:
            return 0, 0
        result = undo_run(self._world.db, int(run), clock=self._world.clock)
        return len(result.restored) + len(result.beside), len(result.skipped)

    def _seen_outside(self) -> set[tuple[object, ...]]:
        """Every entry outside: name, inode, mode, size, times and bytes."""
        found: set[tuple[object, ...]] = set()
        for path in self._outside.rglob("*"):
            status = path.lstat()
            content = path.read_bytes() if path.is_file() else b""
            times = (status.st_mtime_ns, status.st_ctime_ns)
            found.add((path, status.st_ino, status.st_mode, status.st_nlink, *times, content))
        return found

    def _put_back(self) -> None:
        for folder, link in self._pairs:
            if folder.is_symlink():
                folder.unlink()
                link.rename(folder)

    def _count_lost(self) -> None:
        """Delivered bytes that are neither below the camera nor recorded as deleted."""
        there = {
            hashlib.sha256(path.read_bytes()).digest()
            for path in self._world.folder.rglob("*.jpg")
            if path.is_file()
        }
        with self._world.db.read() as connection:
            deleted = {
                bytes(row[0])
                for row in connection.exec_driver_sql(
                    "SELECT sha256 FROM journal WHERE operation = 'delete' AND state = 'done'"
                )
            }
        self._figures.deleted = len(deleted - there)
        self._figures.lost = len(self._delivered - there - deleted)


def _counts(applied: Iterable[ApplyResult]) -> tuple[int, int]:
    results = list(applied)
    return sum(run.applied for run in results), sum(len(run.skipped) for run in results)


def compiled(source: Path, *options: str) -> Path:
    """The program (or, by the options, the library) of one C source; built when that changed."""
    digest = hashlib.sha256(source.read_bytes()).hexdigest()[:16]
    program = LIBRARIES / f"{source.stem}-{digest}"
    if not program.exists():
        LIBRARIES.mkdir(parents=True, exist_ok=True)
        part = LIBRARIES / f".{program.name}.{os.getpid()}"
        command = ["gcc", "-O2", "-Wall", "-Wextra", "-Werror", *options]
        subprocess.run([*command, "-o", str(part), str(source)], check=True)
        part.replace(program)
    return program


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults.symlink_race",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--work", type=Path, help="an empty folder (default: a temporary one)")
    parser.add_argument("--seed", type=int, default=7)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=chosen.work) as folder:
        figures = Race(Path(folder), chosen.seed).run(chosen.seconds, print)
    print("\n".join(figures.lines()))
    return 0 if figures.holds else 1


if __name__ == "__main__":
    sys.exit(main())
