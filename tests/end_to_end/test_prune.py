"""The way of a redundant picture: to the trash, back, and away, by command and by the daemon."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import pytest
from sqlalchemy import Connection, delete

from storage import uptime as counter
from storage.engine import Database
from storage.models import Checkpoint
from tests.end_to_end.process import Row, Site, decided, facts, fill, yard

QUICKLY: dict[str, dict[str, Any]] = {
    "ingest": {"settle_seconds": 0.2},
    "dedup": {"delay_seconds": 0.2, "every_seconds": 1.0},
    "prune": {"enabled": True, "trash_after_days": 1e-7, "delete_after_days": 1e-7},
}
OFF = {key: value for key, value in QUICKLY.items() if key != "prune"}


@pytest.fixture
def judged(site: Site) -> Site:
    """24 pictures of one yard, most of them near-duplicates."""
    site.write_settings(OFF)
    fill(site.folder, {f"yard-{index:02d}.jpg": yard(index) for index in range(24)})
    assert site.once()["frames"]["near_duplicate"] >= 10
    return site


def uptime(site: Site) -> None:
    """Let a daemon note some uptime: a start and an end."""
    with site.daemon() as daemon:
        daemon.wait_until(decided(site, 24), "it knows all pictures")


def trashed_rows(site: Site) -> list[Row]:
    return [row for row in site.rows() if row["state"] == "trashed"]


def test_pruning_is_off_until_the_owner_switches_it_on_and_the_report_says_what_is_there(
    judged: Site, tmp_path: Path
) -> None:
    before = facts(judged.folder)
    dry = judged.cli("prune", "--json")
    assert dry.code == 0
    assert dry.json()["enabled"] is False
    assert dry.json()["to_trash"] == 0, "a week has not passed"
    refused = judged.cli("prune", "--yes", "--json")
    assert refused.code == 1
    assert "[prune]" in refused.json()["error"]["hint"]
    assert facts(judged.folder) == before
    _check_report(judged, tmp_path)


def _check_report(judged: Site, tmp_path: Path) -> None:
    count = judged.status()["frames"]["near_duplicate"]
    words = judged.cli("report").out
    assert words.startswith(f"24 pictures became {24 - count}:")
    told = json.loads(judged.cli("report", "--json", "--camera", "yard").out)
    assert told["total"]["frames_redundant"] == count
    assert [row["frames_before"] for row in told["days"]] == [24]
    assert judged.cli("report", "--since", "2100-01-01").out.startswith("no pictures yet")
    assert judged.cli("report", "--camera", "nobody").code == 1
    plot = tmp_path / "report.png"
    assert judged.cli("report", "--plot", plot).code == 0
    drawn = cv2.imread(str(plot))
    assert drawn is not None
    assert drawn.shape[1] == 1200
    assert (drawn[:, 400:] != 255).any()
    assert judged.cli("report", "--plot", plot).code == 2, "a file is never replaced"
    assert judged.cli("report", "--plot", tmp_path / "report.jpg").code == 2


def test_to_the_trash_and_back_by_restore_and_undo(judged: Site) -> None:
    before = facts(judged.folder)
    count = judged.status()["frames"]["near_duplicate"]
    dry = judged.cli("prune", "--now", "--json").json()
    assert dry["to_trash"] == len(dry["entries"]) == count
    assert facts(judged.folder) == before
    done = judged.cli("prune", "--now", "--yes", "--json")
    assert done.code == 0, done.err
    (run,) = done.json()["trash_runs"]
    found = judged.status()
    assert found["frames"]["trashed"] == found["last_prune"]["trashed"] == count
    assert found["frames"]["on_disk"] == 24
    judged.verify()
    frame = trashed_rows(judged)[0]
    assert frame["path"].startswith("stillwatch/trash/")
    assert judged.cli("restore", frame["id"], "--json").json()["dry_run"]
    back = judged.cli("restore", frame["id"], "--yes", "--json")
    assert back.code == 0, back.err
    assert back.json()["path"] == frame["original_path"]
    assert judged.cli("restore", frame["id"], "--yes").code == 1
    assert "kept: restored" in judged.cli("why", frame["id"]).out
    taken = trashed_rows(judged)[0]
    (judged.folder / taken["path"]).rename(judged.folder / taken["original_path"])
    assert judged.once()["frames"]["total"] == 24, "taken out by hand it is the frame it was"
    assert len(trashed_rows(judged)) == count - 2
    assert judged.cli("prune", "--now", "--json").json()["to_trash"] == 0
    assert judged.cli("undo", run, "--yes").code == 3, "one is elsewhere already, which is said"
    assert facts(judged.folder) == before
    judged.verify()


def test_deletion_tests_each_pair_again_and_frees_room(judged: Site) -> None:
    judged.write_settings(QUICKLY)
    uptime(judged)
    first = judged.cli("prune", "--yes", "--json")
    assert first.code == 0, first.err
    count = first.json()["trashed"]
    assert count >= 10
    total = sum(size for _, size in sizes(judged.folder))
    goal = {**QUICKLY["prune"], "max_gb": (total - 1) / 1e9}
    judged.write_settings({**QUICKLY, "prune": goal})
    uptime_seconds(judged, 10.0)
    second = judged.cli("prune", "--yes", "--json")
    assert second.code == 0, second.err
    assert (second.json()["deleted"], second.json()["missing_bytes"]) == (1, 0)
    found = judged.status()
    assert found["frames"]["pruned"] == 1
    assert found["bytes"]["freed"] == second.json()["bytes_freed"] > 0
    assert sum(size for _, size in sizes(judged.folder)) == total - found["bytes"]["freed"]
    judged.verify()
    (run,) = second.json()["prune_runs"]
    assert judged.cli("undo", run, "--yes").code == 1
    assert judged.cli("report", "--json").json()["total"]["frames_freed"] == 1


def test_what_changed_in_the_camera_since_is_not_deleted(judged: Site) -> None:
    judged.write_settings(QUICKLY)
    uptime(judged)
    count = judged.cli("prune", "--yes", "--json").json()["trashed"]
    with in_database(judged) as connection:
        connection.execute(delete(Checkpoint))
    uptime_seconds(judged, 10.0)
    unknown = judged.cli("prune", "--yes", "--json")
    assert (unknown.code, unknown.json()["deleted"]) == (3, 0)
    assert "noise of its camera is not known" in unknown.json()["entries"][0]["reason"]
    keepers = {row["duplicate_of"] for row in trashed_rows(judged)}
    for row in judged.rows():
        if row["id"] in keepers:
            path = judged.folder / row["path"]
            picture = cv2.imread(str(path))
            assert picture is not None
            cv2.imwrite(str(path), picture[:, ::-1])
    edited = judged.cli("prune", "--yes", "--json")
    assert (edited.code, len(edited.json()["entries"])) == (3, count)
    assert all("changed" in entry["reason"] for entry in edited.json()["entries"])
    assert len(trashed_rows(judged)) == count


def sizes(folder: Path) -> list[tuple[Path, int]]:
    return [(p, p.stat().st_size) for p in folder.rglob("*.jpg") if p.is_file()]


@contextmanager
def in_database(site: Site) -> Iterator[Connection]:
    database = Database(site.state)
    with database.write() as connection:
        yield connection
    database.close()


def uptime_seconds(site: Site, seconds: float) -> None:
    """As if daemons had run so much longer."""
    with in_database(site) as connection:
        known = counter.read(connection)
        assert known.wall is not None
        counter.advance(connection, seconds, known.wall + seconds)


def test_the_daemon_prunes_by_itself_under_the_brake(judged: Site) -> None:
    before = facts(judged.folder)
    judged.write_settings(QUICKLY)
    with judged.daemon() as daemon:
        daemon.wait_until(lambda: judged.status()["last_prune"], "prune has looked")
    last = judged.status()["last_prune"]
    assert last["trashed"] == 0
    assert "Braked" in last["note"]
    assert facts(judged.folder) == before


@pytest.mark.parametrize(
    "line", ["delete_after_days = 0", "delete_after_days =", "delet_after = 9"]
)
def test_a_policy_that_may_be_a_slip_stops_the_start(site: Site, line: str) -> None:
    site.config.write_text(f"[prune]\nenabled = true\n{line}\n")
    refused = site.cli("run", site.folder)
    assert refused.code == 2, refused.out
    assert "settings.toml" in refused.err
    assert "prune.delet" in refused.err or "line 3" in refused.err
    assert not (site.state / "stillwatch.db").exists()
