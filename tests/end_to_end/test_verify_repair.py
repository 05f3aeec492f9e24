"""`verify` names every broken invariant in words, `--repair` mends what needs no file touched.

Each break is made to a copy of a site that was recorded, judged and filed; the commands run here,
in this process, on real files and a real database.
"""

import contextlib
import io
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cli.main import main
from daemon import verification_files
from storage.database_file import sqlite_driver
from tests.end_to_end.judged_site import copy_of
from tests.end_to_end.process import Site, facts, fill, picture, yard

RULES = ("I1", "I2", "I3", "I4", "I5", "I6", "I7", "unreadable")


@pytest.fixture(scope="module")
def filed_site(tmp_path_factory: pytest.TempPathFactory, encoder_cache: Path) -> Site:
    """Twenty-four frames of a camera, exact twins among them, filed, with every cache on disk."""
    site = Site(tmp_path_factory.mktemp("filed"))
    site.write_settings({"clustering": {"min_cluster_size": 5}} | dict(site.settings))
    fill(site.folder, {f"yard-{number:02d}.jpg": yard(number) for number in range(20)})
    fill(site.folder, {f"twin-{number}.jpg": yard(3) for number in range(4)})
    fill(site.folder, {f"other-{number}.jpg": picture(number) for number in range(4)})
    site.once("--file")
    assert (site.state / "representatives.faiss").exists()
    assert (site.state / "neighbours" / "neighbours.json").exists()
    return site


@pytest.fixture
def broken(filed_site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    """A copy of it; a file counts as settled at once."""
    monkeypatch.setattr(verification_files, "YOUNG_SECONDS", 0.0)
    return copy_of(filed_site.base, tmp_path)


@dataclass
class Found:
    """What a command printed and how it ended."""

    code: int
    report: dict[str, Any]

    @property
    def rules(self) -> set[str]:
        return {rule for rule in RULES if self.report[rule]}

    @property
    def text(self) -> str:
        return "\n".join(text for rule in RULES for text in self.report[rule])


def verify(site: Site, *options: str) -> Found:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(io.StringIO()):
        code = main(
            ["--state", str(site.state), "--config", str(site.config), "verify", "--json", *options]
        )
    report = json.loads(printed.getvalue())
    assert "error" not in report, report
    return Found(code, report)


@contextmanager
def database(site: Site) -> Iterator[Any]:
    connection = sqlite_driver().connect(site.state / "stillwatch.db", isolation_level=None)
    try:
        yield connection
    finally:
        connection.close()


def change(sql: str, *values: object) -> Callable[[Site], None]:
    def run(site: Site) -> None:
        with database(site) as connection:
            changed = connection.execute(sql, values).rowcount
            assert changed > 0, sql

    return run


def one(site: Site, where: str) -> str:
    """The path on disk of the first frame that this condition holds for."""
    query = f"SELECT path FROM frames WHERE presence = 'here' AND {where} ORDER BY id"
    return os.fsdecode(bytes(site.table(query)[0][0]))


KEEPER = "id IN (SELECT duplicate_of FROM frames) AND path LIKE CAST('stillwatch/%' AS BLOB)"
DUPLICATES = "path LIKE CAST('stillwatch/duplicates/%' AS BLOB)"


def delete_a_file(site: Site) -> None:
    (site.folder / "other-0.jpg").unlink()


def rename_in_our_folder(site: Site) -> None:
    path = site.folder / one(site, DUPLICATES)
    target = site.folder / "stillwatch" / "by hand" / path.name
    target.parent.mkdir()
    path.rename(target)


def put_into_the_trash_by_hand(site: Site) -> None:
    path = site.folder / one(site, KEEPER)
    target = site.folder / "stillwatch" / "trash" / "2024-01-01" / path.name
    target.parent.mkdir(parents=True)
    path.rename(target)


def rewrite_a_file(site: Site) -> None:
    (site.folder / "other-1.jpg").write_bytes(picture(99))


def rot_a_file(site: Site) -> None:
    """Its bytes change and nothing that stat tells does, as on a failing disk."""
    path = site.folder / "other-2.jpg"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    status = path.stat()
    times = status.st_mtime_ns, status.st_ctime_ns
    name = os.fsencode(path.relative_to(site.folder))
    change("UPDATE frames SET mtime_ns = ?, ctime_ns = ? WHERE path = ?", *times, name)(site)


def mistake_a_twin(site: Site) -> None:
    """A row has the hash of another picture, so that content is not lost."""
    change(
        "UPDATE frames SET sha256 = (SELECT sha256 FROM frames WHERE path ="
        " CAST('other-0.jpg' AS BLOB)) WHERE path = CAST('other-3.jpg' AS BLOB)"
    )(site)


def let_the_times_be_the_files(site: Site) -> None:
    """The rows know the times of the copied files, as after a scan."""
    rows = site.table("SELECT id, path FROM frames WHERE presence = 'here'")
    with database(site) as connection:
        for number, path in rows:
            status = (site.folder / os.fsdecode(bytes(path))).stat()
            connection.execute(
                "UPDATE frames SET mtime_ns = ?, ctime_ns = ? WHERE id = ?",
                (status.st_mtime_ns, status.st_ctime_ns, number),
            )


def nothing_more(_site: Site) -> None:
    """One break, two rules: its row points at nothing, and its content is lost."""


def flip_the_snapshot(site: Site) -> None:
    flip(max((site.state / "neighbours").glob("neighbours-*")))


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


def lose_an_index_entry(site: Site) -> None:
    """A row is written while SQLite does not know that the index is there."""
    entry = "SELECT type, name, tbl_name, rootpage, sql FROM sqlite_master WHERE name = ?"
    with database(site) as connection:
        row = connection.execute(entry, ("frames_counter",)).fetchone()
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute("DELETE FROM sqlite_master WHERE name = 'frames_counter'")
    with database(site) as connection:
        connection.execute("UPDATE frames SET time_source = 'name' WHERE id = 1")
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute("INSERT INTO sqlite_master VALUES (?, ?, ?, ?, ?)", row)


def orphan_a_vector(site: Site) -> None:
    change(
        "INSERT INTO embeddings (frame_id, space_id, vector, weight)"
        " SELECT 4711, space_id, vector, 0 FROM embeddings LIMIT 1"
    )(site)


def two_rows_at_one_path(site: Site) -> None:
    change(
        "INSERT INTO frames (camera_id, path, original_path, arrived_at, presence, stage, alarm,"
        " noise, judged, strikes) SELECT camera_id, path, path, 1, 'trashed', 'rejected', 0, 0, 0,"
        " 0 FROM frames WHERE id = 1"
    )(site)


def delete_without_a_record(site: Site) -> None:
    path = one(site, f"{DUPLICATES} AND duplicate_kind = 'near'")
    (site.folder / path).unlink()
    for presence in ("trashed", "pruned"):
        change("UPDATE frames SET presence = ? WHERE path = ?", presence, path.encode())(site)


OPEN_INTENT = (
    "INSERT INTO journal (frame_id, camera_id, operation, source, target, sha256, device, inode,"
    " size, mtime_ns, mode, state, at) SELECT id, 1, 'move', path,"
    " CAST('stillwatch/new/x.jpg' AS BLOB), sha256, 1, 1, size, 1, 33188, 'intent', 1 FROM frames"
    " WHERE presence = 'here' LIMIT 1"
)
OPEN_RUN = (
    "INSERT INTO runs (kind, state, created_at, started_at, bytes) VALUES ('trash', 'planned', 1,"
    " 1, 0)"
)
JOURNAL_OUTSIDE = (
    "INSERT INTO journal (frame_id, camera_id, operation, source, target, sha256, device, inode,"
    " size, mtime_ns, mode, state, at) VALUES (1, 1, 'move', x'61',"
    " CAST('../b.jpg' AS BLOB), x'00', 1, 1, 1, 1, 1, 'done', 1)"
)
NAN = "UPDATE embeddings SET vector = CAST(x'007e' || substr(vector, 3) AS BLOB) WHERE frame_id = 2"
KEEPER_AWAY = (
    "UPDATE frames SET duplicate_of = 4711 WHERE id = (SELECT max(id) FROM frames WHERE"
    " duplicate_of IS NOT NULL)"
)

CHAIN = (
    "UPDATE frames SET duplicate_of = id + 1 WHERE path LIKE CAST('%twin-1%' AS BLOB)"
    " OR path LIKE CAST('%twin-2%' AS BLOB)"
)

Break = tuple[Callable[[Site], None], str, str]
"""How it is broken, the rule that names it, and words of the sentence."""
FILES: tuple[Break, ...] = (
    (delete_a_file, "I3", "other-0.jpg: there is no such file"),
    (nothing_more, "I1", "other-0.jpg: its content is not on disk"),
    (rename_in_our_folder, "I2", "by hand"),
    (put_into_the_trash_by_hand, "I2", "stillwatch/trash/2024-01-01"),
    (rewrite_a_file, "I3", "other-1.jpg: the file has other content"),
    (lambda site: fill(site.folder, {"new/a.jpg": picture(50)}), "I2", "new/a.jpg has no row"),
)
ROWS: tuple[Break, ...] = (
    (two_rows_at_one_path, "I3", "at the same path"),
    (change("UPDATE embeddings SET vector = x'00' WHERE frame_id = 1"), "I4", "f1: its vector of"),
    (change(NAN), "I4", "f2: its vector of"),
    (change("DELETE FROM embeddings WHERE frame_id = 3"), "I4", "f3 has no vector"),
    (change("UPDATE signatures SET grey = x'00' WHERE frame_id = 4"), "I4", "f4: what the change"),
    (
        lambda site: flip(site.state / "representatives.faiss"),
        "I4",
        "representatives.faiss is not as",
    ),
    (flip_the_snapshot, "I4", "snapshot of `similar` is damaged"),
    (lose_an_index_entry, "I5", "frames_counter"),
    (change(OPEN_INTENT), "I6", "is unfinished (move of"),
    (change(OPEN_RUN), "I6", "trash run"),
    (change(KEEPER_AWAY), "I6", "is a duplicate of f4711"),
    (change(CHAIN), "I6", "f6 is a duplicate of f7, which is not kept"),
)
HOPELESS: tuple[Break, ...] = (
    (rot_a_file, "I3", "other-2.jpg: the file has other content than was recorded, and nobody"),
    (nothing_more, "I1", "other-2.jpg: its content is not on disk"),
    (mistake_a_twin, "I3", "other-3.jpg: the file has other content"),
    (delete_without_a_record, "I1", "has no record"),
    (change(JOURNAL_OUTSIDE), "I7", "../b.jpg"),
)


def break_all(site: Site, breaks: tuple[Break, ...]) -> Found:
    """Break them all; each must be named under its rule, and no other rule be broken."""
    let_the_times_be_the_files(site)
    sound = verify(site)
    assert (sound.code, sound.rules) == (0, set()), sound.text
    for make, _, _ in breaks:
        make(site)
    found = verify(site)
    assert (found.code, found.rules) == (1, {rule for _, rule, _ in breaks}), found.text
    for _, rule, words in breaks:
        assert any(words in text for text in found.report[rule]), (rule, words, found.text)
    return found


@pytest.mark.parametrize("breaks", [FILES, ROWS], ids=["files", "rows"])
def test_what_can_be_mended_is_named_then_mended_and_then_sound(
    broken: Site, breaks: tuple[Break, ...]
) -> None:
    found = break_all(broken, breaks)
    before = facts(broken.folder)

    planned = verify(broken, "--repair")
    assert planned.code == 1
    assert planned.report["dry_run"]
    assert planned.text == found.text
    assert verify(broken).text == found.text, "a dry run changes nothing"

    mended = verify(broken, "--repair", "--yes")
    assert (mended.code, mended.rules) == (0, set()), mended.text
    done = {one["violation"] for one in mended.report["repaired"]}
    assert {one["violation"] for one in planned.report["repairs"]} <= done

    again = verify(broken, "--repair", "--yes")
    assert (again.code, again.report["repaired"]) == (0, []), again.report
    assert facts(broken.folder) == before, "no picture was touched"


def test_a_row_of_no_frame_is_damage_that_only_a_backup_mends(broken: Site) -> None:
    found = break_all(broken, ((orphan_a_vector, "I5", "row of frames that is not there"),))
    assert "doctor" in found.text
    before = (broken.state / "stillwatch.db").read_bytes()
    refused = broken.cli("verify", "--repair", "--yes", "--json")
    assert (refused.code, refused.json()["error"]["code"]) == (1, "damaged_database")
    assert "restore-database" in refused.json()["error"]["hint"]
    assert (broken.state / "stillwatch.db").read_bytes() == before


def test_what_cannot_be_mended_is_left_and_says_what_to_do(broken: Site) -> None:
    found = break_all(broken, HOPELESS)
    before = facts(broken.folder)
    mended = verify(broken, "--repair", "--yes")
    assert (mended.code, mended.report["repaired"]) == (1, [])
    assert mended.text == found.text
    assert facts(broken.folder) == before
    for text in found.text.splitlines():
        assert any(word in text for word in ("backup", "doctor", "look at", "scan")), text
    # what is not read is not met: that is what `--quick` says of itself
    assert "other-2.jpg" not in verify(broken, "--quick").text


def test_beside_a_daemon_it_is_the_daemon_that_mends(broken: Site) -> None:
    """The repair is a request; what was thrown away is computed again by the daemon."""
    change("UPDATE embeddings SET vector = x'00' WHERE frame_id = 1")(broken)
    assert verify(broken, "--repair", "--yes").code == 0
    lacks = "SELECT count(*) FROM frames WHERE id NOT IN (SELECT frame_id FROM embeddings)"
    assert broken.table(lacks) == [(1,)]
    with broken.daemon() as daemon:
        daemon.wait_until(lambda: broken.table(lacks) == [(0,)], "the vector is back")
        rename_in_our_folder(broken)
        done = broken.cli("verify", "--repair", "--yes", "--json")
        assert (done.code, done.json()["ok"]) == (0, True), done.out
        # a scan may have counted it as missing first; where it is, it is recorded either way
        assert any("by hand" in one["violation"] for one in done.json()["repaired"]), done.out
        assert any("/by hand/" in path for path in broken.by_path())
        asked = broken.table("SELECT kind, state, exit_code FROM requests")
        assert asked == [("repair", "done", 0)]
    broken.verify()
