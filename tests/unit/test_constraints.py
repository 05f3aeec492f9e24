"""The owner's links in a clustering: joined, cut, and the newest word wins."""

import numpy as np
import pytest
from numpy.typing import NDArray

from daemon.clustering.constraints import APART, TOGETHER, apply_constraints, nearest_anchor

IDS = np.array([3, 5, 8, 13, 21, 34, 55, 89], dtype=np.int64)


def fan(*degrees: float) -> NDArray[np.float16]:
    """Unit vectors in a plane; float16 as the database has them."""
    angle = np.deg2rad(np.array(degrees))
    return np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float16)


VECTORS = fan(0, 5, 10, 40, 45, 50, 170, 175)
LABELS = np.array([0, 0, 0, 1, 1, 1, 2, -1], dtype=np.int64)


def test_without_links_nothing_changes() -> None:
    assert apply_constraints(LABELS, IDS, VECTORS, []) is LABELS


def test_labels_of_linked_frames_are_joined_whole() -> None:
    joined = apply_constraints(LABELS, IDS, VECTORS, [(TOGETHER, [21, 3])])
    assert joined.tolist() == [1, 1, 1, 1, 1, 1, 2, -1]
    assert LABELS.tolist() == [0, 0, 0, 1, 1, 1, 2, -1]


def test_one_label_that_holds_both_is_cut_at_the_nearest() -> None:
    one = np.zeros(8, dtype=np.int64)
    cut = apply_constraints(one, IDS, VECTORS, [(APART, [5, 34])])
    assert cut.tolist() == [0, 0, 0, 1, 1, 1, 1, 1]
    three = apply_constraints(one, IDS, VECTORS, [(APART, [3, 34, 89])])
    assert three.tolist() == [0, 0, 0, 1, 1, 1, 2, 2]


def test_frames_that_are_apart_already_stay_as_they_are() -> None:
    assert apply_constraints(LABELS, IDS, VECTORS, [(APART, [3, 34])]) is LABELS


def test_only_the_label_that_holds_two_is_cut() -> None:
    labels = np.array([0, 0, 0, 0, 0, 0, 1, 1], dtype=np.int64)
    cut = apply_constraints(labels, IDS, VECTORS, [(APART, [3, 34, 89])])
    assert cut.tolist() == [0, 0, 0, 2, 2, 2, 1, 1]


@pytest.mark.parametrize(
    ("links", "parts"),
    [
        ([(APART, [3, 34]), (TOGETHER, [5, 21])], 1),
        ([(TOGETHER, [5, 21]), (APART, [3, 34])], 2),
        ([(TOGETHER, [3, 34]), (APART, [3, 34]), (TOGETHER, [3, 34])], 1),
    ],
)
def test_the_newest_word_wins(links: list[tuple[str, list[int]]], parts: int) -> None:
    for labels in (LABELS, np.where(LABELS == 1, 0, LABELS)):
        done = apply_constraints(labels, IDS, VECTORS, links)
        assert len(set(done[:6].tolist())) == parts
        assert done[6:].tolist() == [2, -1]


def test_noise_is_looked_for_at_its_nearest_labelled_row() -> None:
    joined = apply_constraints(LABELS, IDS, VECTORS, [(TOGETHER, [3, 89])])
    assert joined.tolist() == [0, 0, 0, 1, 1, 1, 0, -1]
    # with the nearest row no representative, the next one stands in
    rows = np.array([4, 0])
    joined = apply_constraints(LABELS, IDS, VECTORS, [(TOGETHER, [3, 89])], representatives=rows)
    assert joined.tolist() == [0, 0, 0, 0, 0, 0, 2, -1]


def test_noise_that_names_a_part_stays_noise() -> None:
    labels = np.array([0, 0, 0, 0, 0, 0, 0, -1], dtype=np.int64)
    cut = apply_constraints(labels, IDS, VECTORS, [(APART, [3, 89])])
    assert cut.tolist() == [0, 0, 0, 0, 0, 0, 1, -1]


def test_frames_without_a_row_are_left_out() -> None:
    assert apply_constraints(LABELS, IDS, VECTORS, [(TOGETHER, [3, 4]), (APART, [99, 5])]) is LABELS


def test_noise_only_is_left_alone() -> None:
    noise = np.full(8, -1, dtype=np.int64)
    done = apply_constraints(noise, IDS, VECTORS, [(TOGETHER, [3, 5]), (APART, [3, 5])])
    assert done.tolist() == noise.tolist()


def test_equal_pictures_begin_parts_of_their_own() -> None:
    vectors = fan(0, 0, 0, 0)
    cut = apply_constraints(np.zeros(4, dtype=np.int64), np.arange(4), vectors, [(APART, [2, 3])])
    assert (cut[2], cut[3]) == (0, 1)


def test_nearest_anchor_is_by_direction_not_by_length() -> None:
    anchors = np.array([[10.0, 0.0], [0.1, 0.1]])
    assert nearest_anchor(np.array([[1.0, 0.9], [3.0, 0.1]]), anchors).tolist() == [1, 0]


def test_blocks_of_a_long_cluster_are_cut_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((500, 6)).astype(np.float16)
    labels = np.where(rng.random(500) < 0.1, -1, 0)
    labels[[7, 400]] = 0
    links = [(APART, [7, 400, 450]), (TOGETHER, [7, int(np.flatnonzero(labels < 0)[0])])]
    whole = apply_constraints(labels, np.arange(500), vectors, links)
    monkeypatch.setattr("daemon.clustering.constraints.BLOCK_ROWS", 7)
    assert apply_constraints(labels, np.arange(500), vectors, links).tolist() == whole.tolist()
