"""Where frames belong, and the brake: pure functions."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.filing.plan import (
    apply_brake,
    cluster_labels,
    filing_moment,
    plan_filing,
    target_folder,
)
from daemon.filing.target_names import (
    available_name,
    clean_name,
    file_name,
    folder_stem,
    suffixed_name,
)
from daemon.messages import FilingEntry
from storage.beneath import check_relative
from storage.filing_rows import FilingFrame

names = st.binary(min_size=1, max_size=255).filter(
    lambda name: b"/" not in name and b"\0" not in name and name not in (b".", b"..")
)


def frame(number: int = 1, **facts: Any) -> FilingFrame:
    """An assigned frame; `facts` are its other columns."""
    values: dict[str, Any] = {
        "id": number,
        "camera_id": 1,
        "state": "assigned",
        "path": b"in/a.jpg",
        "original_path": b"in/a.jpg",
        "sha256": b"x",
        "size": 1,
        "cluster_id": 3,
        "novelty": None,
        "duplicate_of": None,
        "keeper_path": None,
        "captured_at": "2024-05-06T23:30:00-05:00",
        "arrived_at": 0.0,
        "timezone": "UTC",
    }
    return FilingFrame(**(values | facts))


@pytest.mark.parametrize(
    ("facts", "folder"),
    [
        ({}, b"stillwatch/clusters/c3/2024-05-07"),
        ({"timezone": "America/Chicago"}, b"stillwatch/clusters/c3/2024-05-06"),
        ({"timezone": None}, b"stillwatch/clusters/c3/2024-05-06"),
        ({"captured_at": None}, b"stillwatch/clusters/c3/1970-01-01"),
        ({"state": "novel", "novelty": "scene"}, b"stillwatch/novel/2024-05-07"),
        ({"state": "novel", "novelty": None}, b"stillwatch/novel/2024-05-07"),
        ({"state": "novel", "novelty": "place"}, b"stillwatch/clusters/c3/2024-05-07"),
        (
            {"state": "novel", "novelty": "place", "cluster_id": None},
            b"stillwatch/novel/2024-05-07",
        ),
        (
            {"state": "near_duplicate", "duplicate_of": 9, "keeper_path": b"x/k.y.jpg"},
            b"stillwatch/duplicates/k.y-f9",
        ),
        (
            {"state": "exact_duplicate", "duplicate_of": 9, "keeper_path": b"--k.jpg"},
            b"stillwatch/duplicates/k-f9",
        ),
        ({"cluster_id": 99}, None),
        *(({"state": s}, None) for s in ("outlier", "learning", "pending", "rejected")),
    ],
)
def test_the_folder_of_each_state(facts: dict[str, Any], folder: bytes | None) -> None:
    assert target_folder(frame(**facts), {3: b"c3"}) == folder


def test_an_unknown_zone_falls_back_to_the_stored_time() -> None:
    assert filing_moment(frame(timezone="Not/AZone")).date().isoformat() == "2024-05-06"


def test_filed_frames_stay_and_only_another_cluster_moves_them() -> None:
    filed = frame(path=b"stillwatch/clusters/c3/2024-05-07/a-f1.jpg")
    clusters = {3: None, 4: "cats"}
    assert plan_filing([filed], clusters, taken=lambda _c, _p: False) == []
    moved = frame(path=filed.path, cluster_id=4)
    (entry,) = plan_filing([moved], clusters, taken=lambda _c, _p: False)
    assert entry.target == b"stillwatch/clusters/cats/2024-05-07/a.jpg"
    linked = frame(link=filed.path, cluster_id=4)
    (entry,) = plan_filing([linked], clusters, taken=lambda _c, _p: False)
    assert entry.source == filed.path
    back = {(1, b"stillwatch/clusters/cats/2024-05-07")}
    assert plan_filing([moved], clusters, taken=lambda _c, _p: False, taken_back=back) == []


@given(st.lists(st.tuples(names, st.integers(1, 2)), max_size=12), st.sets(names, max_size=6))
def test_targets_are_safe_and_never_meet(files: list[tuple[bytes, int]], there: set[bytes]) -> None:
    frames = [
        frame(number, original_path=b"d/" + name, path=b"d/%d" % number, camera_id=camera)
        for number, (name, camera) in enumerate(files, 1)
    ]
    folder = b"stillwatch/clusters/c3/2024-05-07/"
    occupied = {folder + name for name in there}
    entries = plan_filing(frames, {3: None}, taken=lambda _camera, path: path in occupied)
    assert len(entries) == len(frames)
    places = {(entry.camera_id, entry.target) for entry in entries}
    assert len(places) == len(entries)
    for entry in entries:
        assert entry.target not in occupied
        assert entry.target.startswith(folder)
        assert len(check_relative(entry.target)) == 5
        assert not entry.target[len(folder) :].startswith((b".", b"-"))


@given(st.text(max_size=200))
def test_cleaned_names_are_one_safe_component(text: str) -> None:
    name = clean_name(text, "c7")
    assert 1 <= len(name) <= 80
    assert check_relative(name) == (name,)
    assert not name.startswith((b".", b"-", b" "))
    assert not name.endswith((b".", b" "))
    assert name.decode("utf-8").isprintable() or not text.isprintable()
    assert clean_name(name.decode(), "c7") == name


@given(names, st.integers(1, 10**12))
def test_folders_of_keepers_end_in_the_id(name: bytes, number: int) -> None:
    folder = folder_stem(name, f"f{number}")
    assert len(folder) <= 80
    assert folder.endswith(b"-f%d" % number)
    assert check_relative(folder) == (folder,)
    folder.decode("utf-8")


@given(names, st.integers(0, 30))
def test_numbered_names_fit_and_keep_the_extension(name: bytes, taken: int) -> None:
    seen: list[bytes] = []

    def refuse(candidate: bytes) -> bool:
        seen.append(candidate)
        return len(seen) <= taken

    free = available_name(name, refuse)
    assert len(set(seen)) == len(seen) == taken + 1
    assert 1 <= len(free) <= 255
    assert free == name if taken == 0 else free != name
    check_relative(free)


def test_names_by_example() -> None:
    assert available_name(b"name.jpg", {b"name.jpg"}.__contains__) == b"name (2).jpg"
    assert suffixed_name("ä".encode() * 125 + b".jpg", b"-f1") == "ä".encode() * 124 + b"-f1.jpg"
    assert suffixed_name(b".hidden", b"-f1") == b".hidden-f1"
    assert suffixed_name(b"a." + b"x" * 253, b"-f1") == b"a." + b"x" * 250 + b"-f1"
    assert file_name(b"-.-rf.jpg") == b"rf.jpg"
    assert clean_name("  ../a/b\n", "c1") == b"_a_b_"
    assert clean_name("...", "c1") == b"c1"


@given(st.dictionaries(st.integers(1, 40), st.none() | st.text(max_size=6), max_size=12))
def test_no_two_clusters_share_a_folder(clusters: dict[int, str | None]) -> None:
    labels = cluster_labels(clusters)
    assert labels.keys() == clusters.keys()
    assert len({label.lower() for label in labels.values()}) == len(labels)


def test_cluster_names_that_collide_or_read_as_an_id() -> None:
    labels = cluster_labels({1: "a/b", 2: "A_b", 3: "c1", 4: "c4", 5: None})
    assert labels == {1: b"a_b", 2: b"A_b-c2", 3: b"c1-c3", 4: b"c4", 5: b"c5"}


def entry(number: int, source: bytes, camera: int = 1) -> FilingEntry:
    """An entry of a plan."""
    return FilingEntry(
        frame_id=number,
        camera_id=camera,
        source=source,
        target=b"stillwatch/x/%d" % number,
        sha256=b"",
        size=0,
        reason="",
    )


def test_the_brake_counts_only_frames_filed_before() -> None:
    again = [entry(n, b"stillwatch/y/%d" % n) for n in range(3)]
    first = [entry(n, b"in/%d" % n) for n in range(3, 8)]
    other = [entry(9, b"stillwatch/y/9", camera=2)]
    plan = [*again, *first, *other]
    counts = {1: 14, 2: 100}
    held = apply_brake(plan, counts, share=0.2, files=4, explicit=False)
    assert [(b.camera_id, b.would_move, b.on_disk) for b in held.brakes] == [(1, 3, 14)]
    assert [[e.frame_id for e in batch] for batch in held.batches] == [[3, 4, 5, 6], [7, 9]]
    assert apply_brake(plan, counts | {1: 15}, share=0.2, files=4, explicit=False).brakes == []
    assert apply_brake(plan, counts | {1: 15}, share=0.2, files=2, explicit=False).brakes != []
    asked = apply_brake(plan, counts, share=0.2, files=4, explicit=True)
    assert (asked.brakes, [len(batch) for batch in asked.batches]) == ([], [4, 4, 1])
