"""Permanent ids: who continues whom when clusters grow, split, merge, vanish and come."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.clustering.identity import match_identities


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
