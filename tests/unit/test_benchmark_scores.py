"""The protocols of the clustering benchmark on planted descriptors whose answer is known."""

import numpy as np
import pytest
from numpy.typing import NDArray

from daemon.messages import FloatArray
from tests.benchmarks import peers
from tests.benchmarks.contest import (
    DBSCAN,
    FASTDUP,
    HDBSCAN,
    KMEANS,
    OURS,
    ari,
    contest,
    contest_table,
    subsets,
)
from tests.benchmarks.contest_reasons import reasons
from tests.benchmarks.embedded import Embedded
from tests.benchmarks.leave_one_out import leave_one_class_out
from tests.planted import plant


def planted_set(spread: float = 0.1) -> Embedded:
    planted = plant(clusters=4, views=20, noise=0, spread=spread)
    labels = np.array([f"class {label}" for label in planted.labels])
    tiles = np.zeros((len(labels), 1, 1, 1), dtype=np.int8)
    return Embedded("planted", tuple(map(str, range(len(labels)))), planted.vectors, tiles, labels)


def test_noise_counts_as_one_class() -> None:
    labels = np.array(["a", "a", "b", "b"])
    assert ari(labels, np.array([-1, -1, 0, 0])) == 1.0
    assert ari(labels, np.array([-1, -1, -1, -1])) == 0.0


def test_subsets_are_seeded_and_differ() -> None:
    first, second = subsets(200, 2)
    assert len(first) == 190
    assert (np.diff(first) > 0).all()
    assert not np.array_equal(first, second)
    assert np.array_equal(subsets(200, 1)[0], first)


def test_contest_runs_every_method_on_the_same_rows() -> None:
    result = contest(planted_set(), 2, fastdup=None)
    assert [entry.method for entry in result.entries] == [OURS, HDBSCAN, DBSCAN, KMEANS]
    mine = result.entry(OURS)
    assert mine.ari == 1.0
    assert mine.subsets == (1.0, 1.0)
    assert result.entry(KMEANS).full.clusters == 4
    assert result.best_other(lambda entry: entry.ari).method in (HDBSCAN, DBSCAN)
    assert f"| planted | {OURS} | 1.000 | 1.000 |" in contest_table([result])
    assert FASTDUP not in contest_table([result])


def test_reasons_are_given_for_weak_peers_only() -> None:
    result = contest(planted_set(), 2, fastdup=None)
    weak = [e.method for e in result.entries if e.method != OURS and e.middle < 0.85]
    sentences = reasons(result)
    assert weak  # bursts and poses: hdbscan with its defaults takes them for clusters
    assert [line.partition(": ")[0] for line in sentences] == [f"- planted, {m}" for m in weak]


def test_a_class_far_from_the_others_is_new_whichever_is_left_out() -> None:
    data = planted_set()
    found = leave_one_class_out(data.vectors, data.labels)
    assert set(found.aurocs) == set(data.labels)
    assert found.mean == pytest.approx(1.0, abs=0.005)


def test_leave_one_out_hands_over_the_class_last_and_never_in_the_bank() -> None:
    data = planted_set()
    seen = []

    def score(bank: FloatArray, arriving: FloatArray) -> NDArray[np.float64]:
        seen.append((len(bank), len(arriving)))
        distances: NDArray[np.float64] = 1 - (arriving @ bank.T).max(axis=1).astype(np.float64)
        return distances

    found = leave_one_class_out(data.vectors, data.labels, score)
    own = int((data.labels == "class 0").sum())
    rest = len(data.labels) - own
    assert seen[0] == (rest // 2, rest - 3 * rest // 4 + own)
    assert found.worst[1] > 0.99
    against = leave_one_class_out(data.vectors, data.labels, lambda b, a: -score(b, a))
    assert against.mean < 0.01


def test_dbscan_and_hdbscan_keep_their_fixed_settings() -> None:
    data = planted_set()
    assert peers.DBSCAN_EPS == 0.3
    assert peers.DBSCAN_MIN_SAMPLES == 4
    coarse = peers.plain_hdbscan(data.vectors, 15, 1)
    assert coarse.clusters <= peers.plain_hdbscan(data.vectors).clusters
