"""`run --once` in a process of its own: what it prints, what it leaves, and how it refuses."""

import json
import os
import sqlite3
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from storage.states import STATES
from tests.end_to_end.process import Answer, Site, facts, fill, picture, wait_until, yard

GOOD = {f"garden-{number:02d}.jpg": picture(number) for number in range(20)}
MIXED = GOOD | {
    "deep/er/late.jpg": picture(50),
    "copy-of-03.jpg": GOOD["garden-03.jpg"],
    "broken.jpg": picture(60)[:400],
    "no-picture.jpg": b"not a picture at all",
    "without-extension": picture(61),
}
IGNORED = {"notes.txt": b"ignored", "clip.mp4": b"ignored"}
SKIPPED = {".hidden.jpg": picture(70), "half.jpg.part": picture(71), ".cam.jpg.Ab12Cd": picture(72)}


def dump(site: Site) -> dict[str, list[tuple[Any, ...]]]:
    """Everything that a second run on an unchanged folder must leave as it is."""
    retried = {"strikes", "retry_at", "recorded_at"}  # a file that waits is looked at again
    columns = [name for (_, name, *_) in site.table("PRAGMA table_info(frames)")]
    kept = ", ".join(name for name in columns if name not in retried)
    tables = ("clusters", "runs", "plan_entries", "embeddings", "decisions", "events")
    return {
        "frames": site.table(f"SELECT {kept} FROM frames ORDER BY id"),
        "cameras": site.table("SELECT id, name, kind, last_arrival_at FROM cameras"),
    } | {name: site.table(f"SELECT * FROM {name} ORDER BY 1") for name in tables}


def test_every_candidate_has_one_row_and_a_second_run_changes_nothing(site: Site) -> None:
    fill(site.folder, MIXED | IGNORED | SKIPPED | {"empty.jpg": b""})
    found = site.once()
    assert list(found) == [
        *("state", "cameras", "frames", "ignored", "clusters", "encoder", "last_recluster"),
        *("last_dedup", "bytes", "latency_ms", "job", "last_prune", "settings", "paused"),
    ]
    frames = found["frames"]
    assert found["state"] == "stopped"
    assert found["ignored"] == len(IGNORED)
    assert sum(frames[state] for state in STATES) == frames["total"] == len(MIXED) + 1
    assert frames["on_disk"] == frames["total"]
    assert (frames["pending"], frames["rejected"], frames["exact_duplicate"]) == (1, 2, 1)
    assert frames["learning"] == 0
    assert found["encoder"]["state"] == "ready"
    assert found["last_recluster"]["run"] == "r1"
    assert found["last_dedup"]["run"] == "r2"
    assert found["cameras"][0]["state"] == "inactive"

    rows = site.cli("frames", "--json").json_lines()
    assert {row["path"] for row in rows} == {*MIXED, "empty.jpg"}
    by_path = {row["path"]: row for row in rows}
    assert by_path["empty.jpg"]["reason"] == "empty: waits for content"
    assert by_path["broken.jpg"]["state"] == "rejected"
    pair = (by_path["copy-of-03.jpg"], by_path["garden-03.jpg"])
    duplicate, keeper = sorted(pair, key=lambda row: row["duplicate_of"] is None)
    assert duplicate["duplicate_of"] == keeper["id"]
    site.verify()

    before = dump(site)
    assert site.once()["last_dedup"]["run"] == "r2"
    assert dump(site) == before


def test_near_duplicates_keep_their_plan_and_a_new_file_makes_a_new_one(site: Site) -> None:
    fill(site.folder, {f"yard-{index:02d}.jpg": yard(index) for index in range(24)})
    first = site.once()
    assert first["frames"]["near_duplicate"] >= 10
    before = dump(site)
    site.once()
    assert dump(site) == before
    fill(site.folder, {"yard-24.jpg": yard(24)})
    third = site.once()
    assert third["frames"]["total"] == 25
    assert third["last_recluster"]["run"] != first["last_recluster"]["run"]


def test_filing_moves_the_duplicates_and_undo_brings_them_back(site: Site) -> None:
    names = {f"yard-{index:02d}.jpg": yard(index) for index in range(24)}
    fill(site.folder, names)
    for number, name in enumerate(names):
        os.utime(site.folder / name, ns=(0, 1_600_000_000_123_456_789 + number))
    before = facts(site.folder)
    found = site.once("--file")
    filed = [row for row in site.rows() if row["path"].startswith("stillwatch/duplicates/")]
    assert len(filed) == found["frames"]["near_duplicate"] >= 10
    site.verify()
    unchanged = dump(site)
    site.once("--file")
    assert dump(site) == unchanged
    for run in reversed(site.runs("dedup") + site.runs("filing")):
        assert site.cli("undo", run, "--yes").code == 0
    assert facts(site.folder) == before
    site.verify()


def test_once_is_refused_beside_a_daemon(site: Site) -> None:
    with site.daemon() as daemon:
        beside = site.cli("run", "--once", "--json", site.folder)
        assert beside.code == 11
        assert str(daemon.process.pid) in one_error(beside)["summary"]


def test_a_file_that_cannot_be_examined_ends_with_3(site: Site) -> None:
    bound = site.bound_by_modes()
    fill(site.folder, {"open.jpg": picture(1), "locked.jpg": picture(2)})
    (site.folder / "locked.jpg").chmod(0)
    done = bound.cli("run", "--once", "--json", site.folder)
    assert done.code == 3
    by_path = site.by_path()
    assert by_path["open.jpg"]["state"] == "outlier"
    assert by_path["locked.jpg"]["state"] == "pending"
    assert by_path["locked.jpg"]["reason"] == "no permission to read it"
    (site.folder / "locked.jpg").chmod(0o644)
    assert bound.cli("run", "--once", "--json", site.folder).code == 0
    assert site.by_path()["locked.jpg"]["state"] == "outlier"


def test_a_file_that_never_rests_does_not_hold_it_up(site: Site) -> None:
    site.write_settings({"ingest": {"settle_seconds": 1.5, "max_settle_seconds": 3}})
    fill(site.folder, {"still.jpg": picture(1), "growing.jpg": picture(2)})
    command = site.command("run", "--once", "--json", site.folder)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    growing = site.folder / "growing.jpg"

    def ended() -> bool:
        with growing.open("ab") as file:
            file.write(b"x")
        return process.poll() is not None

    wait_until(ended, "--once ends", 60)
    out, _ = process.communicate()
    assert process.returncode == 0
    assert json.loads(out)["frames"]["pending"] == 1


def one_error(answer: Answer) -> dict[str, Any]:
    """The error object of a refused command: one line of JSON on stdout."""
    assert len(answer.out.splitlines()) == 1, answer.out
    error: dict[str, Any] = json.loads(answer.out)["error"]
    assert set(error) == {"code", "summary", "hint", "path"}
    assert error["summary"]
    return error


def absent_folder(site: Site) -> list[str]:
    return ["run", "--once", str(site.base / "nowhere")]


def file_for_folder(site: Site) -> list[str]:
    return ["run", "--once", str(site.config)]


def wrong_flag(site: Site) -> list[str]:
    return ["run", "--onse", str(site.folder)]


def damaged_settings(site: Site) -> list[str]:
    site.config.write_text("[ingest\nsettle_seconds = 1")
    return ["run", "--once", str(site.folder)]


def unknown_setting(site: Site) -> list[str]:
    site.write_settings({"ingest": {"settle_second": 1}})
    return ["run", "--once", str(site.folder)]


def overlapping_roots(site: Site) -> list[str]:
    (site.folder / "inner").mkdir()
    return ["run", "--once", str(site.folder), str(site.folder / "inner")]


def newer_database(site: Site) -> list[str]:
    site.once()
    connection = sqlite3.connect(site.state / "stillwatch.db")
    connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.commit()
    connection.close()
    return ["run", "--once", str(site.folder)]


def damaged_database(site: Site) -> list[str]:
    site.state.mkdir()
    (site.state / "stillwatch.db").write_bytes(b"this was a database once" * 400)
    return ["run", "--once", str(site.folder)]


REFUSED: list[tuple[Callable[[Site], list[str]], int]] = [
    (absent_folder, 2),
    (file_for_folder, 2),
    (wrong_flag, 2),
    (damaged_settings, 2),
    (unknown_setting, 2),
    (overlapping_roots, 2),
    (newer_database, 13),
    (damaged_database, 1),
]


@pytest.mark.parametrize(
    ("prepare", "code"), REFUSED, ids=lambda item: getattr(item, "__name__", item)
)
def test_a_refusal_is_one_clear_line(
    site: Site, prepare: Callable[[Site], list[str]], code: int
) -> None:
    arguments = prepare(site)
    plain = site.cli(*arguments)
    assert plain.code == code
    assert plain.out == ""
    assert 1 <= len(plain.err.splitlines()) <= 2, plain.err  # the error and its hint
    with_json = site.cli(*arguments, "--json")
    assert with_json.code == code
    assert one_error(with_json)["summary"].split(":")[0] in plain.err


def test_a_folder_without_permission_is_refused(site: Site) -> None:
    bound = site.bound_by_modes()
    locked = site.base / "locked"
    locked.mkdir(mode=0)
    answer = bound.cli("run", "--once", "--json", locked)
    assert answer.code == 2
    assert "may not be read" in one_error(answer)["summary"]
    sealed = site.base / "sealed"
    sealed.mkdir(mode=0o555)
    for state in (sealed, sealed / "inner"):
        answer = bound.cli("run", "--once", "--json", "--state", state, site.folder)
        assert answer.code == 2
        assert "state folder" in one_error(answer)["summary"]
