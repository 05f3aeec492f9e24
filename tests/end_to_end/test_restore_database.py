"""A damaged or lost database: refused, kept, restored; then every file has its row again."""

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon.jobs.local import open_workshop, perform
from daemon.jobs.restore import restore
from daemon.reconciling import Reconciled, reconcile
from daemon.restoring import adopt_folders, choose_backup
from daemon.restoring import restore as restore_backup
from daemon.settings import load_settings
from storage.backup import make_backup
from storage.database_file import DATABASE_NAME
from storage.engine import Database
from storage.errors import NoStateError, NotFoundError
from tests.end_to_end.process import ROOT, Row, Site, facts, fill, picture, yard

SETTINGS: dict[str, dict[str, object]] = {
    "ingest": {"settle_seconds": 0.2},
    "dedup": {"delay_seconds": 0},
    "prune": {"trash_after_days": 0.000001},
}
IGNORED = frozenset({b"csv", b"txt", b"json", b"xml", b"xmp", b"md", b"log", b"mp4", b"avi", b"db"})
SAME = ("id", "path", "original_path", "sha256", "state", "duplicate_of", "captured_at")
"""What a row must be as it was."""


def on_disk(site: Site) -> dict[str, Row]:
    """Rows of files on disk, the trash among them, by path."""
    return {row["path"]: row for row in site.rows() if row["state"] not in ("missing", "pruned")}


def damage(site: Site) -> bytes:
    path = site.state / DATABASE_NAME
    data = bytearray(path.read_bytes())
    data[4096 * 4 : 4096 * 9] = bytes(4096 * 5)
    path.write_bytes(data)
    return bytes(data)


def quiet(_stage: str, _done: int, _total: int) -> None: ...


def restored(site: Site) -> dict[str, object]:
    settings = load_settings(site.config)
    choice = choose_backup(site.state, settings, None)
    return restore_backup(site.state, settings, choice.path, time.time(), quiet)


class Story:
    """A site, the backup of its middle, and what its database said in the end."""

    def __init__(self, base: Path) -> None:
        self.site = site = Site(base, SETTINGS)
        fill(site.folder, {f"img-{n:03d}.jpg": yard(n) for n in range(30)})
        fill(site.folder, {f"other/p{n}.jpg": picture(n) for n in range(4)})
        fill(site.folder, {"twin.jpg": picture(0)})
        site.once("--file")
        self.kept = next(r["id"] for r in site.rows() if r["state"] == "near_duplicate")
        self.ask("dedup_keep", {"frames": [int(self.kept[1:])]})
        make_backup(site.state, site.state / "backups", "scheduled", time.time())
        self.work()
        self.files = facts(site.folder)
        self.truth = {path: row for path, row in on_disk(site).items() if path in self.files}

    def ask(self, kind: str, arguments: dict[str, object]) -> None:
        """What a command asks for, done in this process."""
        done = perform(self.site.state, self.site.config, kind, arguments, quiet, "me")
        assert done.exit_code == 0, done.result

    def work(self) -> None:
        """Filed, trashed, deleted from the trash, brought back, renamed, arrived, removed."""
        site = self.site
        self.ask("prune", {"now": True})
        trashed = [row for row in site.rows() if row["state"] == "trashed"]
        assert len(trashed) > 8
        (site.folder / trashed[0]["path"]).unlink()
        self.brought_back = trashed[1]["id"]
        self.ask("restore", {"frame": int(self.brought_back[1:])})
        fill(site.folder, {f"img-{n:03d}.jpg": yard(n) for n in range(30, 36)})
        fill(site.folder, {f"late/q{n}.jpg": picture(20 + n) for n in range(3)})
        (site.folder / "other/p1.jpg").rename(site.folder / "other/renamed.jpg")
        (site.folder / "other/p2.jpg").unlink()
        (site.folder / "other/p3.jpg").write_bytes(picture(33))
        site.once("--file")


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    return Story(tmp_path_factory.mktemp("story"))


@pytest.fixture
def site(story: Story, tmp_path: Path) -> Iterator[Site]:
    """The story's site as it was in the end, whatever a test before did to it."""
    spare = tmp_path / "spare"
    shutil.copytree(story.site.base, spare, symlinks=True)
    yield story.site
    for name in ("state", "yard"):
        for entry in (story.site.base / name).iterdir():
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        shutil.copytree(spare / name, story.site.base / name, dirs_exist_ok=True)


def test_a_damaged_database_is_refused_restored_and_equal(site: Site, story: Story) -> None:
    broken = damage(site)
    refused = site.cli("run", "--once", "--file", site.folder)
    assert refused.code == 1 and "damaged" in refused.err
    assert "restore-database" in refused.err
    assert "damaged" in site.cli("prune", "--now", "--yes").err
    assert site.cli("restore-database").code == 0  # a dry run
    assert (site.state / DATABASE_NAME).read_bytes() == broken
    assert facts(site.folder) == story.files

    done = site.cli("restore-database", "--yes", "--json")
    assert done.code == 0, done.err
    told = done.json()
    assert Path(told["kept_aside"]).read_bytes() == broken
    assert told["refound"] > 8 and told["missing"] >= 2
    assert facts(site.folder) == story.files

    site.once()
    site.verify()
    assert facts(site.folder) == story.files  # filing is off: nothing moved
    found = on_disk(site)
    assert found.keys() == story.truth.keys()
    known = {row["id"] for row in found.values()} & {row["id"] for row in story.truth.values()}
    assert len(known) > 25
    for path, row in story.truth.items():
        if row["id"] in known - {story.brought_back}:  # a decision the backup does not know
            assert {k: found[path][k] for k in SAME} == {k: row[k] for k in SAME}
        assert found[path]["sha256"] == row["sha256"]
        assert (found[path]["state"] == "trashed") == (row["state"] == "trashed")
    missing = [row for row in site.rows() if row["state"] == "missing"]
    assert all(row["sha256"] not in {r["sha256"] for r in found.values()} for row in missing)
    new = {row["id"] for row in found.values()} - known
    assert new and all(int(i[1:]) > 100_000 for i in new)  # ids are never given twice


def test_what_is_in_the_trash_comes_back_and_waits_anew(site: Site) -> None:
    damage(site)
    before = time.time()
    restored(site)
    with open_workshop(site.state, site.config) as workshop:
        rows = site.table("SELECT id, trashed_at FROM frames WHERE presence = 'trashed'")
        assert rows and all(at >= before for _, at in rows)
        back = restore(workshop, rows[0][0], "me")
        assert (site.folder / back["path"]).is_file()
        assert not back["beside"]


def test_a_second_comparison_changes_nothing(site: Site) -> None:
    damage(site)
    restored(site)
    rows = site.table("SELECT * FROM frames"), site.table("SELECT * FROM journal")
    db = Database(site.state)
    done = reconcile(db, IGNORED, time.time(), quiet)
    db.close()
    assert done == Reconciled()
    assert (site.table("SELECT * FROM frames"), site.table("SELECT * FROM journal")) == rows


def test_a_lost_database_is_no_fresh_start(site: Site, story: Story) -> None:
    for suffix in ("", "-wal", "-shm"):
        (site.state / f"{DATABASE_NAME}{suffix}").unlink(missing_ok=True)
    refused = site.cli("run", "--once", "--file", site.folder)
    assert refused.code == 10 and "restore-database" in refused.err
    assert not (site.state / DATABASE_NAME).exists()
    with pytest.raises(NoStateError, match="gone"):
        site.rows()
    assert facts(site.folder) == story.files


def test_without_any_backup_the_folders_give_the_rows(site: Site, story: Story) -> None:
    damage(site)
    shutil.rmtree(site.state / "backups")
    with pytest.raises(NotFoundError, match="no sound backup"):
        restored(site)
    settings = load_settings(site.config)
    done = adopt_folders(site.state, settings, [site.folder], time.time(), quiet)
    assert done["adopted"] > 8
    site.once()
    site.verify()
    found = on_disk(site)
    assert found.keys() == story.truth.keys()
    assert facts(site.folder) == story.files
    for path, row in found.items():
        assert (row["state"] == "trashed") == path.startswith("stillwatch/trash/")
        assert row["state"] != "pending"


def test_an_interrupted_restore_is_finished_by_the_next_start(site: Site, story: Story) -> None:
    """Killed between the backup in place and the comparison, as a process of its own."""
    damage(site)
    backup = next((site.state / "backups").glob("*.db"))
    done = subprocess.run([sys.executable, "-c", KILLED, site.state, backup], cwd=ROOT)
    assert done.returncode == -signal.SIGKILL
    with open_workshop(site.state, site.config):
        pass
    found = on_disk(site)
    known = {row["path"] for row in story.truth.values() if row["id"] in ids_of(found)}
    assert known <= found.keys() and len(known) > 25
    assert facts(site.folder) == story.files


KILLED = """
import os, sys, time
from pathlib import Path
from storage.placing import put_in_place
put_in_place(Path(sys.argv[1]), Path(sys.argv[2]), time.time())
os.kill(os.getpid(), 9)
"""


def ids_of(rows: dict[str, Row]) -> set[str]:
    return {row["id"] for row in rows.values()}
