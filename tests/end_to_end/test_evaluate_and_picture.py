"""`dedup evaluate` and `why --picture` on a camera that was really watched."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.end_to_end.process import Site

QUIET, CARS = 60, (30, 31, 36)
WIDTH, HEIGHT = 320, 192


def make_camera(folder: Path) -> None:
    """Frames of one textured yard with the camera's noise; in three of them stands a car."""
    random = np.random.default_rng(5)
    blocks = random.integers(70, 150, (HEIGHT // 16, WIDTH // 16, 3)).astype(np.uint8)
    yard = cv2.resize(blocks, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC).astype(np.float32)
    rows = ["path,label"]
    for number in range(QUIET):
        picture = yard + random.normal(0, 2, yard.shape)
        label = "empty"
        if number in CARS:
            left = 40 if number < 35 else 200
            cv2.rectangle(picture, (left, 30), (left + 70, 80), (20, 20, 220), -1)
            cv2.rectangle(picture, (left + 15, 40), (left + 55, 60), (230, 230, 230), -1)
            label = "car"
        name = f"yard_{number:04d}.jpg"
        cv2.imwrite(str(folder / name), np.clip(picture, 0, 255).astype(np.uint8))
        rows.append(f"{name},{label}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory, encoder_cache: Path) -> Site:
    site = Site(tmp_path_factory.mktemp("evaluate"))
    make_camera(site.folder)
    site.once()
    return site


def test_labels_are_compared_with_the_verdicts(watched: Site) -> None:
    labels = watched.folder / "labels.csv"
    found = watched.cli("dedup", "evaluate", "--labels", labels, "--json").json()
    assert found["labelled_frames"] == QUIET
    assert (found["quiet_frames"], found["changes"]) == (QUIET - len(CARS), len(CARS))
    assert found["quiet_found"] == sum(
        row["state"] == "near_duplicate"
        for row in watched.rows()
        if int(row["path"][5:9]) not in CARS
    )
    assert found["quiet_found_share"] > 0.5
    assert (found["changes_merged"], found["events"], found["events_lost"]) == (0, 2, 0)
    assert found["cross_camera_errors"] == 0
    text = watched.cli("dedup", "evaluate", "--labels", labels)
    assert "0 of 2 events are lost" in text.err


@pytest.mark.parametrize(
    ("text", "arguments", "said"),
    [
        ("file,kind\na.jpg,empty\n", (), "lacks the columns path and label"),
        ("path,label\nnowhere.jpg,empty\n", (), "names no frame"),
        ("path,label\nyard_0001.jpg,still\n", (), "No frame has the label empty"),
        ("path,label\nyard_0001.jpg,empty\n", ("--camera", "gate"), "no camera gate"),
    ],
)
def test_a_table_that_does_not_fit_is_explained(
    watched: Site, tmp_path: Path, text: str, arguments: tuple[str, ...], said: str
) -> None:
    table = tmp_path / "labels.csv"
    table.write_text(text)
    answer = watched.cli("dedup", "evaluate", "--labels", table, *arguments)
    assert answer.code != 0
    assert said in answer.err


def test_the_camera_is_tested_with_things_put_into_its_own_pictures(watched: Site) -> None:
    before = {path.name: path.read_bytes() for path in watched.folder.iterdir()}
    (found,) = watched.cli("dedup", "evaluate", "--pairs", "5", "--json").json()["cameras"]
    shares = {one["kind"]: (one["merged"], one["pairs"]) for one in found["pairs"]}
    assert shares["quiet"][1] == shares["4 %"][1] == 5
    assert shares["quiet"][0] >= 4
    assert shares["4 %"][0] == shares["2 %"][0] == 0
    assert "called a repeat" in found["words"]
    assert {path.name: path.read_bytes() for path in watched.folder.iterdir()} == before
    (camera,) = watched.status()["cameras"]
    assert camera["dedup_test"]["things"] == 30
    assert camera["dedup_test"]["quiet_pairs"] == 5
    again = watched.cli("dedup", "evaluate", "--pairs", "5", "--json").json()["cameras"]
    assert again == [found], "the same frames, the same things, the same figures"


def frame_of(site: Site, state: str, reason: str) -> dict[str, object]:
    return next(r for r in site.rows() if r["state"] == state and reason in (r["reason"] or ""))


def test_why_draws_a_repeat_and_a_change(watched: Site, tmp_path: Path) -> None:
    repeat = frame_of(watched, "near_duplicate", "no visible change")
    out = tmp_path / "repeat.png"
    told = watched.cli("why", str(repeat["id"]), "--picture", out, "--json").json()
    assert told["compared_with"] == repeat["duplicate_of"]
    drawn = cv2.imread(str(out))
    assert drawn is not None
    assert drawn.shape[1] > 3 * 500, "frame, keeper and heat map side by side"

    row = next(r for r in watched.rows() if r["path"] == f"yard_{CARS[0]:04d}.jpg")
    change = tmp_path / "change.png"
    answer = watched.cli("why", str(row["id"]), "--picture", change)
    assert answer.code == 0, answer.err
    assert "upper left, " in answer.out
    hot, cold = (hottest(path) for path in (change, out))
    assert hot[0] > cold[0] + 60, "where the car stands the map is bright, a repeat stays dark"
    x, y = hot[1]
    assert 40 / WIDTH <= x <= 110 / WIDTH
    assert 30 / HEIGHT <= y <= 80 / HEIGHT


def hottest(path: Path) -> tuple[float, tuple[float, float]]:
    """The largest red of the heat map above its grey, and where it is, as shares of the map."""
    sheet = cv2.imread(str(path))
    assert sheet is not None
    width, top, left = 560, 84, 16 + 2 * 576
    tall = round(width * HEIGHT / WIDTH)
    part = sheet[top : top + tall, left : left + width].astype(np.int16)
    warm = cv2.GaussianBlur((part[..., 2] - part[..., 0]).astype(np.float32), (0, 0), 8)
    y, x = np.unravel_index(int(warm.argmax()), warm.shape)
    return float(warm.max()), (float(x) / width, float(y) / tall)


def test_why_never_writes_over_a_file_unasked(watched: Site, tmp_path: Path) -> None:
    frame = str(frame_of(watched, "near_duplicate", "no visible change")["id"])
    out = tmp_path / "there.png"
    out.write_bytes(b"mine")
    refused = watched.cli("why", frame, "--picture", out, "--json")
    assert refused.code == 2
    assert json.loads(refused.out)["error"]["path"] == str(out)
    assert out.read_bytes() == b"mine"
    assert watched.cli("why", frame, "--picture", out, "--force").code == 0
    assert out.read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in tmp_path.iterdir()] == ["there.png"]
    assert watched.cli("why", frame, "--picture", tmp_path / "a.txt").code == 2
    absent = watched.cli("why", frame, "--picture", tmp_path / "no" / "a.png")
    assert absent.code == 2
    assert "cannot be written" in absent.err


def test_why_says_when_there_is_nothing_to_compare_with(watched: Site, tmp_path: Path) -> None:
    first = next(r for r in watched.rows() if r["path"] == "yard_0000.jpg")
    answer = watched.cli("why", str(first["id"]), "--picture", tmp_path / "first.png")
    assert answer.code == 2
    assert "first of its camera" in answer.err


def test_a_wanted_share_of_the_quiet_takes_verdicts_out_of_the_next_plan(
    watched: Site, tmp_path: Path
) -> None:
    shutil.copytree(watched.state, tmp_path / "state")
    strict = Site(tmp_path, {**watched.settings, "dedup": {"quiet_found": 0.5}})
    before = watched.cli("dedup", "plan", "--json").json()
    answer = strict.cli("dedup", "plan", "--new", "--json")
    assert answer.code == 0, answer.err
    after = answer.json()
    kept, all_before = (
        [one["change_score"] for group in plan["groups"] for one in group["members"]]
        for plan in (after, before)
    )
    assert 0 < len(kept) < len(all_before)
    assert max(kept) < max(all_before)
    again = strict.cli("dedup", "plan", "--new", "--json").json()
    assert again["run"] == after["run"], "the scores stay, so the limit does not sink by itself"
