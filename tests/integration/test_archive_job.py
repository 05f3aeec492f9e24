"""The dedup plan of an archive on real files: fingerprints, verdicts, what is left alone.

The vectors are planted, so that no encoder is needed; the files, the decoders and the processes are
real.
"""

import io
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sqlalchemy import insert, update

from daemon.jobs import archive as archive_job
from daemon.jobs.archive_pictures import copies_still
from daemon.jobs.child import JobFailedError
from daemon.jobs.dedup import plan_dedup
from daemon.jobs.workshop import Workshop
from daemon.settings import DedupSettings, IngestSettings, Settings
from storage import archive, cameras, meta, spaces
from storage.models import Camera, Decision, Frame
from storage.overview import camera_summaries
from storage.reading import Reader
from tests.ingest_tools import DIM, World, encoded, make_world, scene

PHOTO = scene(1, 640, 480)
OTHER = scene(2, 640, 480)


def with_exif(image: Image.Image) -> bytes:
    """The very picture of `encoded(image, quality=92)`, with a word in its EXIF block."""
    exif = Image.Exif()
    exif[0x010E] = "seen from the gate"
    return encoded(image, quality=92, exif=exif)


FILES = {
    "photo.jpg": (encoded(PHOTO, quality=92), 0),
    "photo exif.jpg": (with_exif(PHOTO), 0),
    "photo q40.jpg": (encoded(PHOTO, quality=40), 0),
    "half.png": (encoded(PHOTO.resize((320, 240)), "PNG"), 0),
    "brighter.jpg": (encoded(PHOTO.point(lambda v: min(255, v + 12)), quality=92), 0),
    "other.jpg": (encoded(OTHER, quality=92), 0),
    "grey.png": (encoded(Image.new("RGB", (640, 480), (90, 90, 90)), "PNG"), 0),
    "grey again.png": (encoded(Image.new("RGB", (640, 480), (91, 91, 91)), "PNG"), 0),
}
"""Name -> bytes, and the axis of the planted vector: all the same, so that pixels alone decide."""


def workshop_of(world: World, **dedup: Any) -> Workshop:
    settings = Settings(
        dedup=DedupSettings(**dedup), ingest=IngestSettings(decode_children=1, decode_seconds=20)
    )
    with world.db.write() as connection:
        spaces.serve_space(connection, spaces.space_of(connection, world.space_id))
    return Workshop(state_dir=world.state_dir, db=world.db, settings=settings, wall=lambda: 2e9)


def set_kind(world: World, kind: str) -> None:
    with world.db.write() as connection:
        values = {"kind": kind, "kind_source": "owner"}
        connection.execute(update(Camera).where(Camera.id == world.camera_id).values(**values))


def deliver(world: World, files: Mapping[str, tuple[bytes, int]]) -> None:
    """Record files with their true size in pixels and a planted vector."""
    for name, (data, axis) in files.items():
        world.put(name, data)
        frame = world.frame(name)
        with Image.open(io.BytesIO(data)) as opened:
            width, height = opened.size
        image = replace(frame.image, width=width, height=height)
        vector = np.eye(DIM, dtype=np.float32)[axis]
        world.record(replace(frame, image=image, vector=vector))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = make_world(tmp_path)
    set_kind(made, "archive")
    deliver(made, FILES)
    yield made
    made.db.close()


def plan(workshop: Workshop, **options: bool) -> dict[str, Any]:
    return plan_dedup(workshop, lambda *_: None, at_once=True, **options)


def verdicts(world: World) -> dict[str, tuple[str | None, str]]:
    """Name of each frame -> name of its keeper, and the reason."""
    rows = world.rows()
    names = {row["id"]: row["path"].decode() for row in rows}
    return {names[row["id"]]: (names.get(row["duplicate_of"]), row["reason"] or "") for row in rows}


def copies(world: World) -> dict[str, str]:
    return {name: keeper for name, (keeper, _) in verdicts(world).items() if keeper is not None}


EXPECTED = {
    "photo.jpg": "photo exif.jpg",
    "photo q40.jpg": "photo exif.jpg",
    "half.png": "photo exif.jpg",
    "brighter.jpg": "photo exif.jpg",
}
"""Of the pictures with the most pixels, the largest file stands for the others."""


def test_copies_are_found_and_told_in_words(world: World) -> None:
    stages: set[str] = set()
    answer = plan_dedup(workshop_of(world), lambda s, *_: stages.add(s), at_once=True)
    found = verdicts(world)
    assert copies(world) == EXPECTED
    assert answer["frames_redundant"] == 4
    assert stages >= {"reading pixels", "comparing pictures"}
    keeper = next(row["id"] for row in world.rows() if row["path"] == b"photo exif.jpg")
    assert found["photo.jpg"][1].startswith(f"same pixels as f{keeper}: the files differ only in")
    assert found["photo q40.jpg"][1].startswith(f"re-encoded copy of f{keeper}: cosine 1.00, ")
    assert found["half.png"][1].startswith("resized (320 x 240 of 640 x 480) copy of f")
    assert found["photo exif.jpg"] == (None, "kept: the best of 5 copies of one picture")
    assert found["other.jpg"] == (None, archive_job.ALONE)
    assert found["grey.png"] == found["grey again.png"] == (None, archive_job.ALONE)
    rows = {row["path"].decode(): row for row in world.rows()}
    assert {row["state"] for name, row in rows.items() if name in EXPECTED} == {"near_duplicate"}
    assert all(row["change_score"] is None for row in rows.values())
    assert rows["grey.png"]["perceptual_hash"] is None
    assert rows["grey.png"]["pixel_sha256"] != rows["grey again.png"]["pixel_sha256"]
    assert rows["photo.jpg"]["pixel_sha256"] == rows["photo exif.jpg"]["pixel_sha256"]


def test_nothing_is_read_or_compared_twice(world: World) -> None:
    workshop = workshop_of(world)
    first = plan(workshop)
    (world.folder / "photo.jpg").chmod(0o600)
    stages: list[str] = []
    again = plan_dedup(workshop, lambda stage, *_: stages.append(stage), at_once=True)
    assert again["run"] == first["run"]
    assert stages == []
    deliver(world, {"new.jpg": (encoded(PHOTO, quality=60), 0)})
    later = plan_dedup(workshop, lambda stage, *_: stages.append(stage), at_once=True)
    assert copies(world) == EXPECTED | {"new.jpg": "photo exif.jpg"}
    assert later["run"] != first["run"]
    assert stages.count("reading pixels") == 1, "one picture was new"


def test_a_file_that_cannot_be_decoded_now_is_kept_with_the_reason(world: World) -> None:
    (world.folder / "photo q40.jpg").write_bytes(b"somebody wrote over it")
    (world.folder / "half.png").unlink()
    plan(workshop_of(world))
    found = verdicts(world)
    assert found["half.png"] == (None, archive_job.NOT_COMPARED.format("its file is gone"))
    assert found["photo q40.jpg"][0] is None
    assert found["photo q40.jpg"][1].startswith("kept, not compared with the archive: no picture")
    assert copies(world) == {
        k: v for k, v in EXPECTED.items() if k in ("photo.jpg", "brighter.jpg")
    }


def test_an_absent_folder_ends_with_everything_kept(world: World) -> None:
    world.folder.rename(world.folder.with_name("away"))
    plan(workshop_of(world))
    assert copies(world) == {}
    reasons = {reason for _, reason in verdicts(world).values()}
    assert reasons == {archive_job.NOT_COMPARED.format("the folder of its camera is away")}
    world.folder.with_name("away").rename(world.folder)
    plan(workshop_of(world))
    assert copies(world) == EXPECTED


def test_reading_pixels_goes_on_where_it_was_stopped(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stretch without time begins no file; the one before it is not lost."""
    workshop = workshop_of(world)
    camera = cameras_of(world)
    monkeypatch.setattr(archive_job, "STRETCH_SECONDS", 0.2)
    archive_job.read_pixels(workshop, camera, lambda *_: None)
    with world.db.read() as connection:
        assert archive.without_fingerprint(connection, world.camera_id) == []
    with world.db.write() as connection:
        connection.execute(update(Frame).where(Frame.id > 3).values(pixel_sha256=None))
    told: list[int] = []
    archive_job.read_pixels(workshop, camera, lambda _s, _d, total: told.append(total))
    assert max(told) == len(FILES) - 3


def cameras_of(world: World) -> cameras.CameraRow:
    with world.db.read() as connection:
        return cameras.list_cameras(connection)[0]


def test_a_failed_process_changes_no_verdict(world: World) -> None:
    workshop = workshop_of(world)
    plan(workshop)
    before = verdicts(world)
    with world.db.write() as connection:  # a fingerprint of another length cannot be compared
        connection.execute(update(Frame).where(Frame.id == 1).values(perceptual_hash=b"short"))
        meta.put(connection, f"{archive_job.DONE_KEY}:{world.camera_id}", "asked again")
    with pytest.raises(JobFailedError):
        plan(workshop)
    assert verdicts(world) == before


def test_the_words_of_the_owner_stand(world: World) -> None:
    ids = {row["path"].decode(): row["id"] for row in world.rows()}
    words = [
        {"kind": "keep", "frame_id": ids["half.png"]},
        {
            "kind": "apart",
            "frame_id": ids["brighter.jpg"],
            "data": {"keeper": ids["photo exif.jpg"]},
        },
    ]
    with world.db.write() as connection:
        for word in words:
            connection.execute(insert(Decision).values(actor="ann", at=1.0, **word))
    plan(workshop_of(world))
    assert copies(world) == {
        name: keeper
        for name, keeper in EXPECTED.items()
        if name not in ("half.png", "brighter.jpg")
    }


@pytest.mark.parametrize(("policy", "keeper"), [("first", "photo.jpg"), ("last", "brighter.jpg")])
def test_a_policy_of_age_chooses_by_age(world: World, policy: str, keeper: str) -> None:
    with world.db.write() as connection:
        for row in world.rows():
            connection.execute(
                update(Frame).where(Frame.id == row["id"]).values(captured_ns=int(row["id"]))
            )
    plan(workshop_of(world, keeper=policy))
    assert set(copies(world).values()) == {keeper}
    assert len(copies(world)) == 4


def test_another_kind_takes_the_verdicts_back(world: World) -> None:
    """An archive's copy may hold an overlay; on a fixed camera that is a change."""
    workshop = workshop_of(world)
    plan(workshop)
    assert copies(world) == EXPECTED
    set_kind(world, "moving")
    plan(workshop)
    assert copies(world) == {}
    assert {row["judged"] for row in world.rows()} == {0}
    set_kind(world, "archive")
    plan(workshop)
    assert copies(world) == EXPECTED


def test_before_a_deletion_copies_are_compared_again(world: World) -> None:
    plan(workshop_of(world))
    ids = {row["path"].decode(): row["id"] for row in world.rows()}
    copied = [(ids[name], ids[keeper]) for name, keeper in EXPECTED.items()]
    others = [(ids["other.jpg"], ids["photo.jpg"]), (ids["grey.png"], ids["grey again.png"])]
    unknown = [(ids["photo.jpg"], 999)]
    with world.db.read() as connection:
        asked = [*copied, *others, *unknown]
        assert copies_still(connection, world.space_id, asked) == set(copied)


def test_a_moving_camera_gets_exact_duplicates_only(world: World) -> None:
    set_kind(world, "moving")
    deliver(world, {"twin.jpg": (FILES["other.jpg"][0], 0)})
    answer = plan(workshop_of(world))
    assert copies(world) == {"twin.jpg": "other.jpg"}
    assert answer["frames_redundant"] == 1
    assert verdicts(world)["twin.jpg"][1].startswith("same bytes as f")


def suggestion_after(world: World, sizes: list[tuple[int, int]]) -> str | None:
    """What `status` suggests for a camera that delivers small pictures of these sizes."""
    with world.db.write() as connection:
        connection.execute(update(Camera).values(kind="fixed", kind_source="default"))
    pictures = {
        f"{number}.png": (encoded(scene(number, *size), "PNG"), 0)
        for number, size in enumerate(sizes)
    }
    deliver(world, pictures)
    camera = cameras_of(world)
    with world.db.write() as connection:
        archive_job.note_resemblance(connection, camera)
    with Reader(world.state_dir) as reader:
        told: str | None = camera_summaries(reader, running=True)[0]["suggestion"]
    return told


def test_a_folder_of_many_sizes_is_suggested_to_be_an_archive(tmp_path: Path) -> None:
    many = make_world(tmp_path)
    try:
        told = suggestion_after(many, [(20 + number % 6, 16) for number in range(30)])
        assert told is not None
        assert told.startswith("looks like an archive")
        assert cameras_of(many).kind == "fixed", "it is said, nothing follows"
        set_kind(many, "fixed")
        with Reader(many.state_dir) as reader:
            assert camera_summaries(reader, running=True)[0]["suggestion"] is None
    finally:
        many.db.close()


def test_a_camera_of_two_sizes_is_no_archive(tmp_path: Path) -> None:
    few = make_world(tmp_path)
    try:
        assert suggestion_after(few, [(20 + number % 2, 16) for number in range(30)]) is None
    finally:
        few.db.close()
