"""Permanent ids: who continues whom when clusters grow, split, merge, vanish and come."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.clustering.identity import Ending, Split, follow_clusters, match_identities


def ids(*parts: tuple[int, int]) -> np.ndarray:
    """`ids((7, 3), (-1, 2))` is three times 7, twice -1."""
    return np.concatenate([np.full(n, value, dtype=np.int64) for value, n in parts])


def test_renumbered_clusters_keep_their_ids() -> None:
    match = match_identities(ids((11, 20), (12, 30), (13, 40)), ids((2, 20), (0, 30), (1, 40)))
    assert match.kept == {2: 11, 0: 12, 1: 13}
    assert match.retired == ()


def test_split_keeps_the_id_with_the_larger_part() -> None:
    match = match_identities(ids((5, 100)), ids((0, 35), (1, 65)))
    assert match.kept == {1: 5}
    assert match.retired == ()


def test_merge_keeps_the_id_of_the_larger_and_retires_the_other() -> None:
    match = match_identities(ids((5, 30), (6, 70)), ids((0, 100)))
    assert match.kept == {0: 6}
    assert match.retired == (5,)


def test_equal_merge_goes_to_the_older_id() -> None:
    assert match_identities(ids((9, 50), (4, 50)), ids((0, 100))).kept == {0: 4}


def test_equal_split_goes_to_the_smaller_label() -> None:
    assert match_identities(ids((4, 100)), ids((1, 50), (0, 50))).kept == {0: 4}


def test_most_frames_stay_rather_than_the_best_single_pair() -> None:
    """Label by label, 1 would take label 0 (60) and 2 be left with nothing but 30."""
    old = ids((1, 60), (1, 50), (2, 55))
    new = ids((0, 60), (1, 50), (0, 55))
    match = match_identities(old, new)
    assert match.kept == {1: 1, 0: 2}  # 105 frames stay; greedily only 60


def test_small_overlap_is_no_successor() -> None:
    match = match_identities(ids((3, 100), (8, 5)), ids((-1, 81), (0, 19), (1, 5)))
    assert match.kept == {1: 8}
    assert match.retired == (3,)
    assert match_identities(ids((3, 100)), ids((-1, 80), (0, 20))).kept == {0: 3}


def test_growth_by_new_frames_is_no_small_overlap() -> None:
    match = match_identities(ids((3, 20), (-1, 500)), ids((0, 520)))
    assert match.kept == {0: 3}


def test_noise_continues_nothing() -> None:
    match = match_identities(ids((3, 50), (-1, 50)), ids((-1, 50), (0, 50)))
    assert match.kept == {}
    assert match.retired == (3,)


@pytest.mark.parametrize("n", [0, 4])
def test_without_any_id_everything_is_born(n: int) -> None:
    match = match_identities(ids((-1, n)), np.arange(n, dtype=np.int64))
    assert (match.kept, match.retired) == ({}, ())


def test_different_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="Shapes differ"):
        match_identities(ids((1, 3)), ids((1, 2)))


pairs = st.lists(st.tuples(st.integers(-1, 6), st.integers(-1, 6)), max_size=80)


@settings(max_examples=150, deadline=None)
@given(pairs, st.randoms(use_true_random=False))
def test_is_a_matching_whatever_the_order(rows: list[tuple[int, int]], random: object) -> None:
    old = np.array([r[0] for r in rows], dtype=np.int64)
    new = np.array([r[1] for r in rows], dtype=np.int64)
    match = match_identities(old, new)
    assert len(set(match.kept.values())) == len(match.kept)
    assert set(match.kept.values()) | set(match.retired) == set(old[old >= 0].tolist())
    assert not set(match.kept.values()) & set(match.retired)
    assert all(((old == i) & (new == label)).any() for label, i in match.kept.items())
    assert match_identities(old[::-1], new[::-1]) == match


def test_overlap_is_the_maximum() -> None:
    from itertools import permutations

    rng = np.random.default_rng(1)
    for _ in range(20):
        new = rng.integers(0, 4, 200)
        old = np.where(rng.random(200) < 0.6, new, rng.integers(0, 4, 200))
        table = np.array([[((old == i) & (new == j)).sum() for j in range(4)] for i in range(4)])
        union = table.sum(axis=1)[:, None] + table.sum(axis=0) - table
        table[table < 0.2 * union] = 0
        best = max(sum(table[i, p[i]] for i in range(4)) for p in permutations(range(4)))
        kept = match_identities(old, new).kept
        assert sum(table[i, j] for j, i in kept.items()) == best


def test_a_thousand_clusters_keep_their_ids() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 1000, 40_000)
    shuffled = rng.permutation(1000)[truth]
    new = np.where(rng.random(40_000) < 0.05, rng.integers(0, 1000, 40_000), shuffled)
    kept = match_identities(truth + 1, new).kept
    assert len(kept) == 1000
    stay = np.array([kept[label] for label in new.tolist()]) == truth + 1
    assert stay.mean() > 0.94


def none(n: int) -> np.ndarray:
    return np.full(n, -1, dtype=np.int64)


def test_a_split_is_recorded_and_the_part_is_born() -> None:
    changes = follow_clusters(ids((5, 100)), none(100), ids((0, 35), (1, 65)))
    assert (changes.kept, changes.born) == ({1: 5}, {0: 35})
    assert changes.splits == [Split(cluster_id=5, label=0, frames=35)]
    assert changes.ended == []


def test_a_few_frames_that_leave_are_no_split() -> None:
    changes = follow_clusters(ids((5, 100), (-1, 40)), none(140), ids((1, 81), (0, 19), (0, 40)))
    assert (changes.kept, changes.born, changes.splits) == ({1: 5}, {0: 59}, [])


def test_a_merge_names_the_heir() -> None:
    changes = follow_clusters(ids((5, 30), (6, 70)), none(100), ids((0, 100)))
    assert changes.kept == {0: 6}
    assert changes.ended == [Ending(cluster_id=5, frames=30, heir=0)]


def test_a_cluster_that_crumbles_has_no_heir() -> None:
    changes = follow_clusters(ids((5, 100), (6, 300)), none(400), ids((0, 45), (-1, 55), (0, 300)))
    assert changes.kept == {0: 6}
    assert changes.ended == [Ending(cluster_id=5, frames=100, heir=None)]


def test_frames_of_a_retired_cluster_bring_it_back() -> None:
    former = ids((9, 40), (-1, 60))
    changes = follow_clusters(none(100), former, ids((3, 38), (-1, 2), (4, 60)))
    assert (changes.kept, changes.returned, changes.born) == ({}, {3: 9}, {4: 60})


def test_a_part_split_off_is_no_return_of_the_few_old_frames_in_it() -> None:
    """Ten frames of the retired 9 are all in label 1, but most of it comes from the living 5."""
    old = ids((5, 300), (-1, 10))
    former = ids((-1, 300), (9, 10))
    changes = follow_clusters(old, former, ids((0, 200), (1, 100), (1, 10)))
    assert (changes.kept, changes.returned, changes.born) == ({0: 5}, {}, {1: 110})


def test_a_merged_cluster_returns_when_the_two_part_again() -> None:
    old, former = ids((6, 100)), ids((5, 30), (-1, 70))
    changes = follow_clusters(old, former, ids((0, 30), (1, 70)))
    assert (changes.kept, changes.returned, changes.born) == ({1: 6}, {0: 5}, {})


def test_the_living_go_before_those_that_return() -> None:
    changes = follow_clusters(ids((6, 30), (-1, 70)), ids((-1, 30), (5, 70)), ids((0, 100)))
    assert (changes.kept, changes.returned) == ({0: 6}, {})


def test_former_ids_of_another_length_are_refused() -> None:
    with pytest.raises(ValueError, match="former"):
        follow_clusters(ids((1, 3)), none(2), ids((1, 3)))


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(*[st.integers(-1, 4)] * 3), max_size=80))
def test_every_label_has_exactly_one_fate(rows: list[tuple[int, int, int]]) -> None:
    table = np.array(rows, dtype=np.int64).reshape(-1, 3)
    old, labels = table[:, 0], table[:, 2]
    former = np.where(table[:, 1] >= 0, table[:, 1] + 10, -1)
    changes = follow_clusters(old, former, labels)
    fates = [*changes.kept, *changes.returned, *changes.born]
    assert sorted(fates) == np.unique(labels[labels >= 0]).tolist()
    assert len(set(changes.kept.values()) | set(changes.returned.values())) == len(fates) - len(
        changes.born
    )
    living = set(old[old >= 0].tolist())
    assert {end.cluster_id for end in changes.ended} == living - set(changes.kept.values())
    assert {split.label for split in changes.splits} <= set(changes.born)
