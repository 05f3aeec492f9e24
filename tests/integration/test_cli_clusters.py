"""`clusters ...` on a real state folder: history, dry runs, decisions and their undo, export."""

import csv
import hashlib
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from sqlalchemy import delete, update

from storage.engine import Database
from storage.models import Cluster, Event, Frame
from tests.cli_state import HOSTILE as ODD_NAME
from tests.cli_state import NOW, Result, add, add_frame, make_state, run_cli

SIZES = {"j.jpg": (640, 480), "k.jpg": (300, 900), "l.jpg": (40, 30)}


@pytest.fixture
def state(tmp_path: Path) -> Path:
    make_state(tmp_path / "state", tmp_path / "yard")
    return tmp_path / "state"


@pytest.fixture
def pictured(state: Path, tmp_path: Path) -> Path:
    """The frames f10 to f12 of c2 have their pictures: red, green and blue."""
    (tmp_path / "yard").mkdir()
    database = Database(state)
    try:
        with database.write() as connection:
            for number, (name, (width, height)) in enumerate(SIZES.items()):
                picture = np.zeros((height, width, 3), dtype=np.uint8)
                picture[:, :, 2 - number] = 200
                data = cv2.imencode(".jpg", picture)[1].tobytes()
                (tmp_path / "yard" / name).write_bytes(data)
                facts = {"sha256": hashlib.sha256(data).digest(), "width": width}
                connection.execute(
                    update(Frame)
                    .where(Frame.path == name.encode())
                    .values(height=height, size=len(data), **facts)
                )
    finally:
        database.close()
    return state


def clusters(state: Path) -> dict[str, dict[str, object]]:
    return {row["id"]: row for row in run_cli("clusters", "--json", state=state).json_lines()}


def undo(state: Path, done: Result) -> None:
    assert run_cli("undo", done.json()["run"], "--yes", state=state).code == 0


def test_history_tells_of_machines_and_humans_in_order(state: Path) -> None:
    database = Database(state)
    try:
        for at, kind, cluster, data in (
            (NOW, "cluster_born", 1, {"frames": 1}),
            (NOW + 1, "cluster_split", 1, {"into": 2, "frames": 30}),
            (NOW + 1, "cluster_born", 2, {"from": 1, "frames": 30}),
            (NOW + 2, "cluster_retired", 3, {"frames": 5}),
            (NOW + 3, "camera_offline", None, {}),
        ):
            add(database, Event, kind=kind, at=at, cluster_id=cluster, run_id=1, data=data)
    finally:
        database.close()
    assert run_cli("clusters", "rename", "c2", "gate", "--yes", state=state).code == 0
    pinned = run_cli("clusters", "pin", "gate", "--yes", "--json", state=state)
    undo(state, pinned)
    told = run_cli("clusters", "history", "--json", state=state).json_lines()
    assert [(row["cluster"], row["event"]) for row in told] == [
        *(("c1", "born"), ("c1", "split"), ("c2", "born"), ("c3", "retired")),
        *(("c2", "renamed"), ("c2", "pinned"), ("c2", "undone")),
    ]
    assert told[0]["text"] == "new cluster of 1 frame"
    assert told[1] | {"at": ""} == {
        "at": "",
        "event": "split",
        "cluster": "c1",
        "name": "empty yard",
        "frames": 30,
        "into": "c2",
        "run": "r1",
        "by": None,
        "text": "30 frames of it became c2",
    }
    assert told[2]["text"].endswith("split off from c1")
    assert told[4]["by"]
    assert told[5]["run"] == pinned.json()["run"]
    own = run_cli("clusters", "history", "c1", "--json", state=state).json_lines()
    assert [row["event"] for row in own] == ["born", "split", "born"]
    assert len(run_cli("clusters", "history", "c3", state=state).out.splitlines()) == 1


def test_merge_is_a_dry_run_then_done_then_undone(state: Path) -> None:
    before = clusters(state)
    dry = run_cli("clusters", "merge", "empty yard", "c2", "--json", state=state)
    assert dry.json() == {"dry_run": True, "cluster": "c1", "merged": ["c2"], "frames": 3}
    assert clusters(state) == before
    done = run_cli("clusters", "merge", "empty yard", "c2", "--yes", "--json", state=state)
    assert done.code == 0, done.err
    after = clusters(state)
    assert list(after) == ["c1"]
    assert (after["c1"]["name"], after["c1"]["size"]) == ("empty yard", 6)
    ended = run_cli("clusters", "pin", "c2", "--json", state=state)
    assert (ended.code, ended.json()["error"]["summary"]) == (1, "c2 was merged into c1.")
    undo(state, done)
    assert clusters(state) == before


def test_split_is_a_dry_run_then_done_then_undone(state: Path) -> None:
    before = clusters(state)
    command = ("clusters", "split", "c1", "f1", "f3", "--json")
    dry = run_cli(*command, state=state)
    assert dry.json() == {
        "dry_run": True,
        "cluster": "c1",
        "stay": 2,
        "frames": 1,
        "parts": ["f3: 1"],
    }
    assert clusters(state) == before
    done = run_cli(*command, "--yes", state=state)
    assert done.code == 0, done.err
    undo(state, done)
    assert clusters(state) == before
    foreign = run_cli("clusters", "split", "c1", "f1", "f10", "--json", state=state)
    assert (foreign.code, foreign.json()["error"]["code"]) == (2, "usage")


@pytest.mark.parametrize(("word", "mark"), [("pin", "pinned"), ("ignore", "ignored")])
def test_marks_are_set_shown_and_taken_away(state: Path, word: str, mark: str) -> None:
    assert run_cli("clusters", word, "c1", "--json", state=state).json()["dry_run"]
    assert clusters(state)["c1"][mark] is False
    assert run_cli("clusters", word, "c1", "--yes", state=state).code == 0
    assert clusters(state)["c1"][mark] is True
    assert run_cli("clusters", state=state).out.splitlines()[0].endswith(f"\t{mark}")
    assert run_cli("clusters", word, "c1", "--off", "--yes", state=state).code == 0
    assert clusters(state)["c1"][mark] is False


def test_export_writes_a_table_sheets_and_a_plot(pictured: Path, tmp_path: Path) -> None:
    out = tmp_path / "review"
    originals = {file: file.stat().st_mtime_ns for file in (tmp_path / "yard").iterdir()}
    done = run_cli("clusters", "export", out, "--json", state=pictured)
    assert done.code == 0, done.err
    assert done.json() == {
        "folder": str(out),
        "clusters": 2,
        "frames": 6,
        "sheets": 1,
        "skipped": 1,  # f1; its duplicates are not asked for
    }
    assert "f1 is not on its contact sheet" in done.err
    assert sorted(file.name for file in out.iterdir()) == ["c2.jpg", "clusters.csv", "counts.png"]
    with (out / "clusters.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["frame"] for row in rows] == ["f1", "f2", "f3", "f10", "f11", "f12"]
    assert [row["medoid"] for row in rows] == ["yes", "no", "no", "yes", "no", "no"]
    assert rows[0]["name"] == "empty yard"
    assert rows[3] | {"captured_at": ""} == {
        "cluster": "c2",
        "name": "",
        "frame": "f10",
        "path": "j.jpg",
        "camera": "yard",
        "captured_at": "",
        "distance": "0.02",
        "membership": "",
        "outlier_score": "",
        "medoid": "yes",
    }
    assert {file: file.stat().st_mtime_ns for file in originals} == originals


def test_a_sheet_shows_the_medoid_first_and_keeps_proportions(
    pictured: Path, tmp_path: Path
) -> None:
    run_cli("clusters", "export", tmp_path / "out", "--cluster", "c2", state=pictured)
    sheet = cv2.imread(str(tmp_path / "out" / "c2.jpg"))
    assert sheet is not None
    boxes = [box_of(np.asarray(sheet, dtype=np.uint8), channel) for channel in (2, 1, 0)]
    shapes = [(right - left, bottom - top) for left, top, right, bottom in boxes]
    assert [box[0] for box in boxes] == sorted(box[0] for box in boxes)
    for (width, height), (true_width, true_height) in zip(shapes, SIZES.values(), strict=True):
        assert width / height == pytest.approx(true_width / true_height, abs=0.06)
        assert 80 <= max(width, height) <= 282
    assert cv2.imread(str(tmp_path / "out" / "counts.png")) is not None


def box_of(sheet: NDArray[np.uint8], channel: int) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of the area in which only this channel is bright."""
    others = np.delete(sheet, channel, axis=2).max(axis=2)
    rows, columns = np.nonzero((sheet[:, :, channel] > 150) & (others < 90))
    return int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1


def test_export_overwrites_nothing_unless_forced(pictured: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    precious = tmp_path / "precious.txt"
    precious.write_text("mine")
    (out / "clusters.csv").symlink_to(precious)
    refused = run_cli("clusters", "export", out, "--json", state=pictured)
    assert (refused.code, refused.json()["error"]["code"]) == (2, "usage")
    assert [file.name for file in out.iterdir()] == ["clusters.csv"]
    assert run_cli("clusters", "export", out, "--force", state=pictured).code == 0
    assert precious.read_text() == "mine"
    assert not (out / "clusters.csv").is_symlink()


def test_export_never_writes_among_a_cameras_pictures(pictured: Path, tmp_path: Path) -> None:
    (tmp_path / "alias").symlink_to(tmp_path / "yard")
    for folder in (tmp_path / "yard" / "out", tmp_path / "alias" / "deep" / "out"):
        refused = run_cli("clusters", "export", folder, "--json", state=pictured)
        assert (refused.code, refused.json()["error"]["code"]) == (2, "usage")
        assert "camera yard" in refused.json()["error"]["summary"]
    assert sorted(os.listdir(tmp_path / "yard")) == sorted(SIZES)


def test_pictures_that_cannot_be_shown_are_named(pictured: Path, tmp_path: Path) -> None:
    yard = tmp_path / "yard"
    (yard / "j.jpg").write_bytes((yard / "k.jpg").read_bytes())
    (yard / "k.jpg").unlink()
    (yard / "k.jpg").symlink_to(yard / "l.jpg")
    done = run_cli("clusters", "export", tmp_path / "out", "--cluster", "c2", state=pictured)
    assert done.code == 0
    assert "f10 is not on its contact sheet: its file has changed" in done.err
    assert "f11 is not on its contact sheet: It is no regular file" in done.err
    assert (tmp_path / "out" / "c2.jpg").exists()


def test_export_of_odd_names_and_of_nothing(state: Path, tmp_path: Path) -> None:
    database = Database(state)
    try:
        add_frame(database, b"x" + ODD_NAME, cluster_id=2)
        done = run_cli("clusters", "export", tmp_path / "out", state=state)
        assert done.code == 0, done.err
        assert "\\xff" in (tmp_path / "out" / "clusters.csv").read_text(encoding="utf-8")
        with database.write() as connection:
            connection.execute(update(Frame).values(cluster_id=None))
            connection.execute(delete(Cluster))
    finally:
        database.close()
    empty = run_cli("clusters", "export", tmp_path / "empty", "--json", state=state)
    assert empty.json()["clusters"] == 0
    assert sorted(os.listdir(tmp_path / "empty")) == ["clusters.csv", "counts.png"]
    assert run_cli("clusters", "export", tmp_path / "e", "--cluster", "c9", state=state).code == 1
