"""What must have outlived a kill or a power cut: pictures, records, and the rules of `verify`."""

import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from daemon.settings import IngestSettings
from daemon.verification import verify
from storage.engine import Database
from storage.errors import StillwatchError
from storage.journal import Recovery, recover
from storage.reading import Reader
from storage.root_guard import load_roots
from tests.end_to_end.process import Daemon, Site, files

IGNORED: Final = frozenset(name.encode() for name in IngestSettings().ignore)
RULES: Final = tuple(f"I{number}" for number in range(1, 8))
WITHOUT_A_SCAN: Final = tuple(rule for rule in RULES if rule != "I2")
"""What holds before a scan has seen the newest files."""
BESIDE_OTHERS: Final = ("I4", "I5", "I6", "I7")
"""What holds while others go on renaming files."""
_JOURNAL: Final = "SELECT id, state FROM journal"
_PRUNED: Final = (
    "SELECT hex(f.sha256) FROM frames f JOIN journal j ON j.frame_id = f.id"
    " WHERE f.presence = 'pruned' AND j.operation = 'delete' AND j.state = 'done'"
)
_MOVING: Final = (
    "SELECT kind FROM runs WHERE kind IN ('filing', 'trash', 'prune', 'folders')"
    " AND started_at IS NOT NULL AND finished_at IS NULL AND id > ?"
)
WARM_SECONDS: Final = 300.0
_LOOK_SECONDS: Final = 0.01


@dataclass(frozen=True, slots=True)
class Records:
    """What a reader of the database saw: whoever saw it may rely on it.

    `journal`: state of each file operation; `frames`, `runs`: the highest numbers.
    """

    journal: Mapping[int, str] = field(default_factory=dict)
    frames: int = 0
    runs: int = 0

    @property
    def open_operations(self) -> int:
        """Intents that are neither done nor dropped."""
        return sum(state == "intent" for state in self.journal.values())


def records(state: Path) -> Records:
    """The records of this moment; none while there is no database, or it cannot be read yet."""
    try:
        with Reader(state) as reader:
            frames, runs = (
                int(reader.one(f"SELECT coalesce(max(id), 0) FROM {table}")[0])
                for table in ("frames", "runs")
            )
            return Records({row[0]: row[1] for row in reader.rows(_JOURNAL)}, frames, runs)
    except StillwatchError:
        return Records()


def forgotten(before: Records, after: Records) -> list[str]:
    """What was committed before and is not there after."""
    lost = [f"journal row {i} is gone" for i in before.journal.keys() - after.journal.keys()]
    lost += [
        f"journal row {i} was {state}, it is {after.journal[i]}"
        for i, state in before.journal.items()
        if state != "intent" and after.journal.get(i, state) != state
    ]
    if after.frames < before.frames or after.runs < before.runs:
        lost.append(f"rows are gone: {before.frames, before.runs} to {after.frames, after.runs}")
    return lost


def digests(folder: Path) -> set[str]:
    """SHA-256 of every file below; one that is renamed meanwhile may be left out."""
    found = set()
    for path in files(folder):
        with suppress(FileNotFoundError):
            found.add(hashlib.sha256(path.read_bytes()).hexdigest())
    return found


def lost_pictures(site: Site, delivered: Mapping[str, str], taken: Iterable[str] = ()) -> list[str]:
    """Names of delivered pictures that are nowhere, and have no record of a lawful deletion.

    Args:
        site: The folder and its state.
        delivered: Name -> SHA-256 of all that came.
        taken: SHA-256 of what the owner deleted.
    """
    known = digests(site.folder) | set(taken)
    missing = {name: digest for name, digest in delivered.items() if digest not in known}
    if missing:
        pruned = {row[0].lower() for row in site.table(_PRUNED)}
        missing = {name: digest for name, digest in missing.items() if digest not in pruned}
    return sorted(missing)


def broken_rules(site: Site, rules: Sequence[str] = RULES, *, but: Iterable[str] = ()) -> list[str]:
    """Recover as a start does, twice, and prove the invariants; violations in words.

    Args:
        site: Not in use by a daemon.
        rules: Which of them hold at this moment.
        but: Names of files that were in flight and may be anything.
    """
    database = Database(site.state)
    try:
        with database.read() as connection:
            roots = load_roots(connection)
        recover(database, roots, time.time())
        again = recover(database, roots, time.time())
        found = verify(database, IGNORED, lambda *_: None)
    finally:
        database.close()
    told = [] if again == Recovery() else [f"I6: a second recovery acts again: {again}"]
    told += [f"{rule}: {words}" for rule in rules for words in found[rule]]
    return [words for words in told if not any(name in words for name in but)]


@dataclass(slots=True)
class Strikes:
    """What was under way at the moments that were struck; one moment may count under several."""

    moments: int = 0
    seen: Counter[str] = field(default_factory=Counter)

    def note(self, site: Site, newest: int, *, starting: bool) -> None:
        """Count what the state folder says now. `newest`: run before the daemon's start."""
        self.moments += 1
        words = {"starting"} if starting else under_way(site, newest)
        self.seen.update(words or {"taking in, or idle"})

    def __str__(self) -> str:
        return ", ".join(f"{words} {count}" for words, count in self.seen.most_common())


def under_way(site: Site, newest: int) -> set[str]:
    """Words for what a daemon is doing or was when it was killed."""
    try:
        with Reader(site.state) as reader:
            words = {f"a {row[0]} run" for row in reader.rows(_MOVING, (newest,))}
            job = reader.meta("job")
            if reader.one("SELECT count(*) FROM journal WHERE state = 'intent'")[0]:
                words.add("between two steps of a file operation")
            if reader.one("SELECT count(*) FROM frames WHERE stage = 'pending'")[0]:
                words.add("frames in hand")
    except StillwatchError:
        return {"making the database"}
    if isinstance(job, dict):
        words.add(f"a {job['kind']} job")
    return words


def newest_run(site: Site) -> int:
    """Number of the newest run; 0 without one."""
    return records(site.state).runs


def warm_up(site: Site, daemon: Daemon) -> None:
    """Until the first pictures are clustered and filed: then every kind of work is under way."""
    query = "SELECT 1 FROM runs WHERE kind = 'filing' AND state = 'applied'"
    daemon.wait_until(lambda: site.table(query), "the first frames are filed", WARM_SECONDS)


def counts(site: Site) -> str:
    """How many frames are in which state."""
    found = site.status()["frames"]
    return ", ".join(f"{name} {count}" for name, count in found.items() if count)


def wait_for_moves(site: Site, newest: int, seconds: float) -> bool:
    """Until a run after that one moves or deletes files, but not longer than that."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            with Reader(site.state) as reader:
                if list(reader.rows(_MOVING, (newest,))):
                    return True
        except StillwatchError:  # the database is being made
            pass
        time.sleep(_LOOK_SECONDS)
    return False


def in_a_fork(work: Callable[[], list[str]]) -> list[str]:
    """Run it in a process of its own that shares what is imported; its answer.

    Raises:
        RuntimeError: It ended without an answer.
    """
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.close(read_end)
            answer = json.dumps(work()).encode()
            with os.fdopen(write_end, "wb") as pipe:
                pipe.write(answer)
            code = 0
        finally:
            os._exit(code)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as pipe:
        answer = pipe.read()
    _, status = os.waitpid(child, 0)
    if status != 0:
        raise RuntimeError(f"the check ended with status {status}")
    found: list[str] = json.loads(answer)
    return found
