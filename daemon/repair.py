"""`verify --repair`: mends what can be mended without touching a user's file, and says what.

Rows follow the files, caches are thrown away to be built anew, what was interrupted is settled
by what lies on disk. Everything is looked at again in the moment it is mended. What cannot be
mended stays a violation, whose words say what its owner can do.
"""

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection

from daemon.jobs.workshop import NEIGHBOURS_FOLDER, Workshop
from daemon.verification import examine
from daemon.verification_files import first_at
from daemon.verification_rows import unfinished
from daemon.verification_walk import status_at
from daemon.violations import Kind, Progress, Violation, as_report
from storage import frames, journal_rows, repairs, runs, spaces
from storage.durable_files import sync
from storage.engine import Database
from storage.errors import FilingError, RootOfflineError
from storage.file_facts import examine as facts_of
from storage.filing_rows import path_recorded
from storage.index_files import INDEX_NAME, header_path
from storage.journal import recover
from storage.lock import holder
from storage.root_guard import load_root, load_roots
from storage.snapshot_files import POINTER

REMEDIES: Final[Mapping[Kind, str]] = {
    "intent": "finish it or take it back, by what lies on disk",
    "run": "end the run",
    "strayed": "record the frame where its file is",
    "file_gone": "count the frame as missing; it is known if it comes back",
    "file_changed": "give the new content a row of its own; the old frame counts as replaced",
    "no_row": "give the file a row; the daemon reads it next",
    "keeper": "let the frame be judged again",
    "vector": "throw the vector away; the daemon computes it again",
    "no_vector": "note that the daemon has to compute it",
    "signature": "throw it away; it is computed again from the file",
    "index": "throw the index away; the next start builds it again",
    "neighbours": "throw the snapshot away; the next recluster builds it again",
    "reindex": "build the indexes of the database again",
}
"""What is done about each kind of violation; in this order, because one may settle the next."""
_ROUNDS: Final = 4
"""A repair may bring another to light: a keeper that turns up in the trash frees its duplicates."""
LOST_VECTOR: Final = "its vector was damaged or lost; the daemon computes it again"


@dataclass(frozen=True, slots=True, kw_only=True)
class Repair:
    """One violation and what is done about it, in words."""

    rule: str
    violation: str
    repair: str


def planned(violations: Iterable[Violation]) -> list[Repair]:
    """What a repair would do, in the order in which it would."""
    return [_told(violation) for violation in _mendable(violations)]


def _mendable(violations: Iterable[Violation]) -> list[Violation]:
    """What something can be done about; a frame whose file was found elsewhere is not missing."""
    order = list(REMEDIES)
    found = sorted((v for v in violations if v.kind), key=lambda v: order.index(v.kind))
    strayed = {v.number for v in found if v.kind == "strayed"}
    return [v for v in found if v.kind != "file_gone" or v.number not in strayed]


def interrupted_work(state_dir: Path) -> list[Repair]:
    """Open operations and runs, with what becomes of them; none while a daemon may be at them."""
    database = Database(state_dir, read_only=True)
    try:
        with database.read() as connection:
            daemon = holder(state_dir) is not None
            found = unfinished(connection, daemon=daemon)
    finally:
        database.close()
    return planned(v for v in found if v.kind in ("intent", "run"))


def _told(violation: Violation) -> Repair:
    return Repair(rule=violation.rule, violation=violation.text, repair=REMEDIES[violation.kind])


def repair(
    workshop: Workshop, ignored: frozenset[bytes], progress: Progress, *, quick: bool
) -> tuple[list[Repair], dict[str, Any]]:
    """Mend what can be mended; holds `files`, so that nothing is moved meanwhile.

    Args:
        workshop: State folder and database of this process, which holds the lock.
        ignored: Extensions (lower case) that have no rows.
        progress: Told stage, done, total.
        quick: Believe files whose size and times are the recorded ones.

    Returns:
        What was done, and the report of `verify` on what is left.
    """
    done: list[Repair] = []
    with workshop.files:
        found = examine(workshop.db, ignored, progress, quick=quick).violations
        hopeless = [v for v in found if not v.kind and v.rule not in ("offline", "unknown")]
        mender = _Mender(workshop)
        for _ in range(_ROUNDS):
            mended = mender.mend(found)
            # the files were read just now, so their times tell from here on
            after = examine(workshop.db, ignored, progress, quick=True)
            found = after.violations
            done += mended
            if not mended:
                break
    gone = set(mender.settled)
    left = [v for v in hopeless if v.rule != "I1" or v.number not in gone]
    return done, after.report() | as_report([*left, *found])


class _Mender:
    """Mends violations of one examination, one kind after the other."""

    def __init__(self, workshop: Workshop) -> None:
        self._workshop = workshop
        self._db = workshop.db
        self._recovered = False
        self.settled: list[int] = []
        """Frames whose row follows its file again: what was said of their content is past."""
        self._acts: Mapping[Kind, Callable[[Violation], bool]] = {
            "intent": self._recover,
            "run": self._recover,
            "strayed": self._reattach,
            "file_gone": self._count_missing,
            "file_changed": self._replace,
            "no_row": self._give_row,
            "keeper": self._release,
            "vector": self._forget_vector,
            "no_vector": self._note_gap,
            "signature": self._forget_signature,
            "index": lambda _: _unseal(header_path(workshop.state_dir / INDEX_NAME)),
            "neighbours": lambda _: _unseal(workshop.state_dir / NEIGHBOURS_FOLDER / POINTER),
            "reindex": lambda _: self._write(repairs.rebuild_indexes),
        }

    def mend(self, violations: Iterable[Violation]) -> list[Repair]:
        """What was done; what turned out to be in order by now is left out."""
        done = []
        for violation in _mendable(violations):
            with suppress(RootOfflineError, FilingError, OSError):
                if self._acts[violation.kind](violation):
                    done.append(_told(violation))
                    if violation.rule in ("I2", "I3"):
                        self.settled.append(violation.number)
        return done

    def _write(self, change: Callable[[Any], object]) -> bool:
        """One change in a transaction of its own; False where it found nothing to do."""
        with self._db.write() as connection:
            return change(connection) is not False

    def _recover(self, violation: Violation) -> bool:
        """Settle everything that was interrupted, the first time that it is asked."""
        if not self._recovered:
            with self._db.read() as connection:
                roots = load_roots(connection)
            recover(self._db, roots, self._workshop.wall(), at_start=True)
            self._recovered = True
        with self._db.read() as connection:
            if violation.kind == "run":
                return violation.number not in {run["id"] for run in runs.unfinished(connection)}
            return violation.number not in journal_rows.open_ids(connection)

    def _reattach(self, violation: Violation) -> bool:
        camera_id, path, now = violation.camera_id, violation.path, self._workshop.wall()
        with self._opened_root(camera_id) as root_fd:
            facts = facts_of(root_fd, path)
            return facts is not None and self._write(
                lambda connection: repairs.reattach(
                    connection, camera_id, violation.number, path, facts, now
                )
            )

    def _count_missing(self, violation: Violation) -> bool:
        with self._opened_root(violation.camera_id) as root_fd, self._db.write() as connection:
            twin = first_at(connection, violation.camera_id, violation.path) < violation.number
            if status_at(root_fd, violation.path) is not None and not twin:
                return False
            return repairs.count_missing(connection, violation.number, violation.path)

    def _replace(self, violation: Violation) -> bool:
        with self._opened_root(violation.camera_id) as root_fd:
            if status_at(root_fd, violation.path) is None:
                return False
            now = self._workshop.wall()
            return self._write(
                lambda connection: repairs.replace_content(
                    connection, violation.number, violation.path, now
                )
            )

    def _give_row(self, violation: Violation) -> bool:
        with self._opened_root(violation.camera_id) as root_fd, self._db.write() as connection:
            if status_at(root_fd, violation.path) is None:
                return False
            camera_id, path = violation.camera_id, violation.path
            frames.insert_pending(connection, camera_id, [path], self._workshop.wall())
            return path_recorded(connection, camera_id, path)

    def _release(self, violation: Violation) -> bool:
        return self._write(lambda connection: repairs.release(connection, violation.number))

    def _forget_vector(self, violation: Violation) -> bool:
        def forget(connection: Connection) -> None:
            repairs.forget_vector(connection, violation.number, violation.space_id)
            self._note(connection, violation)

        return self._write(forget)

    def _note_gap(self, violation: Violation) -> bool:
        return self._write(lambda connection: self._note(connection, violation))

    def _note(self, connection: Connection, violation: Violation) -> None:
        gaps = {violation.number: LOST_VECTOR}
        spaces.note_gaps(connection, violation.space_id, gaps, self._workshop.wall())

    def _forget_signature(self, violation: Violation) -> bool:
        return self._write(
            lambda connection: repairs.forget_signature(
                connection, violation.number, violation.space_id
            )
        )

    def _opened_root(self, camera_id: int) -> AbstractContextManager[int]:
        with self._db.read() as connection:
            return load_root(connection, camera_id).opened()


def _unseal(seal: Path) -> bool:
    """Take away what vouches for a cache; without it nobody believes the rest."""
    seal.unlink(missing_ok=True)
    sync(seal.parent)
    return True
