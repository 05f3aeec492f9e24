"""A database with flipped bytes or cut short: read soundly or refused, never believed by half."""

import random
from collections import Counter
from pathlib import Path

import pytest

from cli.context import _require_sound_database
from storage import meta
from storage.database_file import DATABASE_NAME
from storage.engine import Database
from storage.errors import DamagedDatabaseError, NewerSchemaError, NoStateError, StillwatchError
from storage.listing import clusters, frames, runs
from storage.overview import status
from storage.reading import Reader
from tests.cli_state import make_state

OFFSETS = 100
CUTS = 20


def read_everything(state: Path) -> None:
    with Reader(state) as reader:
        status(reader, running=False)
        for listing in (frames, clusters, runs):
            list(listing(reader))


def outcome(state: Path, data: bytes) -> str:
    """What becomes of a database of these bytes; a refused one must be left as it is."""
    for entry in state.iterdir():
        entry.unlink()
    path = state / DATABASE_NAME
    path.write_bytes(data)
    try:
        read_everything(state)
    except StillwatchError as exc:
        assert exc.exit_code in (1, 10, 13)
    except (LookupError, AttributeError, TypeError, ValueError):
        # rows that make no sense: the command line looks at the database and says so
        with pytest.raises(DamagedDatabaseError):
            _require_sound_database(state)
    try:
        Database(state).close()
    except (DamagedDatabaseError, NewerSchemaError) as exc:
        assert path.read_bytes() == data
        assert "\n" not in exc.summary and exc.path == str(path)
        return "refused"
    try:
        read_everything(state)
    except DamagedDatabaseError:  # found when it is read: a text that is none, a broken page
        return "refused"
    return "sound"


def test_flipped_bytes_and_truncations(tmp_path: Path) -> None:
    state = tmp_path / "state"
    make_state(state, tmp_path / "yard")
    good = (state / DATABASE_NAME).read_bytes()
    rng = random.Random(5)
    used = [offset for offset, byte in enumerate(good) if byte]
    found: Counter[str] = Counter()
    for offset in [*range(0, 100, 10), *rng.sample(used, OFFSETS - 10)]:
        data = bytearray(good)
        data[offset] ^= rng.randrange(1, 256)
        found["flip " + outcome(state, bytes(data))] += 1
    for size in rng.sample(range(1, len(good)), CUTS):
        found["cut " + outcome(state, good[:size])] += 1
    assert found["flip refused"] > 10
    assert found["cut refused"] >= CUTS - 1, found
    assert outcome(state, good) == "sound"


def test_a_damaged_database_keeps_the_log_of_a_crash(tmp_path: Path) -> None:
    state, crashed = tmp_path / "state", tmp_path / "crashed"
    state.mkdir()
    crashed.mkdir()
    db = Database(state)
    with db.write() as connection:
        for number in range(400):
            meta.put(connection, f"key{number}", "x" * 400)
    db.checkpoint()
    with db.write() as connection:
        meta.put(connection, "late", 1)
    for name in (DATABASE_NAME, f"{DATABASE_NAME}-wal"):
        (crashed / name).write_bytes((state / name).read_bytes())
    db.close()
    Database(crashed).close()  # sound: the log is folded in

    data = bytearray((state / DATABASE_NAME).read_bytes())
    data[8192 * 3 : 8192 * 9] = bytes(8192 * 6)
    log = b"\0" * 64
    (crashed / DATABASE_NAME).write_bytes(data)
    (crashed / f"{DATABASE_NAME}-wal").write_bytes(log)
    with pytest.raises(DamagedDatabaseError):
        Database(crashed)
    assert (crashed / DATABASE_NAME).read_bytes() == data
    assert (crashed / f"{DATABASE_NAME}-wal").read_bytes() == log


@pytest.mark.parametrize("what", ["file", "log", "other file"])
def test_a_database_taken_away_while_it_is_open_takes_no_write(tmp_path: Path, what: str) -> None:
    db = Database(tmp_path)
    for number in range(2):
        with db.write() as connection:
            meta.put(connection, "key", number)
    path = tmp_path / DATABASE_NAME
    if what == "log":
        path.with_name(f"{DATABASE_NAME}-wal").unlink()
    else:
        path.rename(tmp_path / "away")
    if what == "other file":
        other = tmp_path / "other"
        other.mkdir()
        Database(other).close()
        (other / DATABASE_NAME).rename(path)
    for _ in range(2):
        with pytest.raises(DamagedDatabaseError, match="removed or exchanged"), db.write():
            raise AssertionError("a write transaction was given")
    assert db.damage is not None
    db.close()


def test_damage_under_an_open_database_ends_its_writes(tmp_path: Path) -> None:
    db = Database(tmp_path)
    with db.write() as connection:
        for number in range(400):  # more than SQLite keeps in memory
            meta.put(connection, f"key{number}", "x" * 20_000)
    db.checkpoint()
    path = tmp_path / DATABASE_NAME
    with path.open("r+b") as file:
        file.seek(8192)
        file.write(b"\x55" * (path.stat().st_size - 8192))
    with pytest.raises(DamagedDatabaseError), db.read() as connection:
        connection.exec_driver_sql("SELECT sum(length(value)) FROM meta").all()
    with pytest.raises(DamagedDatabaseError), db.write():
        raise AssertionError("a write transaction was given")
    db.close()


def test_an_empty_file_where_a_database_was_is_no_fresh_start(tmp_path: Path) -> None:
    Database(tmp_path).close()
    path = tmp_path / DATABASE_NAME
    path.unlink()
    Database(tmp_path).close()  # nothing else was there: a fresh start
    path.rename(tmp_path / f"{DATABASE_NAME}.aside-20260101T000000Z")
    path.touch()
    with pytest.raises(NoStateError, match="gone"):
        Database(tmp_path)
    assert path.stat().st_size == 0
    Database(tmp_path, fresh=True).close()
