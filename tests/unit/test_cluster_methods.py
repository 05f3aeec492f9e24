"""The methods of `stillwatch cluster` on planted vectors, and what each refuses."""

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from daemon.clustering import methods
from daemon.clustering.methods import MethodSettings, estimate_seconds, fit_labels, load_libraries
from daemon.jobs.cluster_vectors import duration
from storage.errors import UsageError
from tests.cli_state import ROOT
from tests.planted import plant


def nothing(stage: str, done: int, total: int) -> None:
    """Progress that nobody looks at."""


@pytest.mark.parametrize(
    ("settings", "least"),
    [
        (MethodSettings(), 0.99),
        (MethodSettings(method="dbscan", eps=0.1), 0.99),
        (MethodSettings(method="kmeans", clusters=6), 0.9),
        # it takes bursts for clusters, which is why ours is the default
        (MethodSettings(method="hdbscan", min_cluster_size=15), 0.3),
    ],
    ids=lambda value: value.method if isinstance(value, MethodSettings) else "",
)
def test_planted_clusters_are_found(settings: MethodSettings, least: float) -> None:
    planted = plant()
    # lengths and dtype mean nothing: directions are compared
    rows = (planted.vectors * np.linspace(1, 50, len(planted.vectors))[:, None]).astype(np.float16)
    labels = fit_labels(settings, rows, nothing)
    inside = planted.labels >= 0
    assert labels.dtype == np.int64
    assert labels.min() >= -1
    assert set(range(labels.max() + 1)) <= set(labels.tolist())
    assert adjusted_rand_score(planted.labels[inside], labels[inside]) >= least


@pytest.mark.parametrize("method", methods.METHODS)
@pytest.mark.parametrize("n", [1, 2, 4, 5, 6, 14])
def test_few_rows(method: str, n: int) -> None:
    rows = np.random.default_rng(n).standard_normal((n, 8))
    clusters = 1 if method == "kmeans" else None
    labels = fit_labels(MethodSettings(method=method, clusters=clusters), rows, nothing)
    assert labels.shape == (n,)
    assert set(labels.tolist()) == ({0} if method == "kmeans" else {-1}) or n >= 4


@pytest.mark.parametrize("method", methods.METHODS)
def test_all_rows_equal_are_one_cluster(method: str) -> None:
    clusters = 3 if method == "kmeans" else None
    labels = fit_labels(MethodSettings(method=method, clusters=clusters), np.ones((40, 8)), nothing)
    # plain hdbscan calls them noise: nothing there is denser than its surroundings
    assert set(labels.tolist()) == ({-1} if method == "hdbscan" else {0})


def test_kmeans_repeats_itself_and_learns_from_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    planted = plant()
    settings = MethodSettings(method="kmeans", clusters=6, seed=3)
    whole = fit_labels(settings, planted.vectors, nothing)
    assert np.array_equal(whole, fit_labels(settings, planted.vectors, nothing))
    monkeypatch.setattr(methods, "KMEANS_TRAINING_ROWS", 120)
    sampled = fit_labels(settings, planted.vectors, nothing)
    assert np.array_equal(sampled, fit_labels(settings, planted.vectors, nothing))
    inside = planted.labels >= 0
    assert adjusted_rand_score(planted.labels[inside], sampled[inside]) >= 0.8


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"method": "optics"}, "no method optics"),
        ({"clusters": 3}, "density has no --clusters"),
        ({"eps": 0.2}, "density has no --eps"),
        ({"method": "hdbscan", "eps": 0.2}, "hdbscan has no --eps"),
        ({"method": "dbscan", "min_cluster_size": 4}, "dbscan has no --min-cluster-size"),
        ({"method": "kmeans", "clusters": 2, "min_cluster_size": 4}, "kmeans has no"),
        ({"method": "kmeans"}, "needs --clusters"),
        ({"method": "dbscan", "eps": 0.0}, "above 0"),
        ({"method": "dbscan", "eps": 2.1}, "at most 2"),
        ({"method": "dbscan", "eps": float("nan")}, "above 0"),
    ],
)
def test_options_that_do_not_fit(given: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        MethodSettings(**given).check()
    assert caught.value.hint


def test_more_clusters_than_rows() -> None:
    settings = MethodSettings(method="kmeans", clusters=5)
    settings.check_rows(5)
    with pytest.raises(UsageError, match="5 clusters"):
        settings.check_rows(4)


def test_estimates() -> None:
    assert estimate_seconds("density", 10**6, 1280) is None
    assert estimate_seconds("kmeans", 10**6, 1280) is None
    slow = estimate_seconds("hdbscan", 416_314, 1280)
    assert slow is not None
    assert duration(slow) == "3 days"
    fast = estimate_seconds("dbscan", 416_314, 1280)
    assert fast is not None
    assert duration(fast) == "2 h"
    assert [duration(value) for value in (40, 300)] == ["40 s", "5 min"]


@pytest.mark.parametrize("method", methods.METHODS)
def test_no_method_imports_a_library_within_its_time(method: str) -> None:
    program = (
        "import sys, numpy; from daemon.clustering.methods import *; load_libraries(sys.argv[1])\n"
        "before = {name.split('.')[0] for name in sys.modules}\n"
        "rows = numpy.random.default_rng(0).standard_normal((60, 16))\n"
        "clusters = 2 if sys.argv[1] == 'kmeans' else None\n"
        "settings = MethodSettings(method=sys.argv[1], clusters=clusters)\n"
        "fit_labels(settings, rows, lambda *told: None)\n"
        "after = {name.split('.')[0] for name in sys.modules}\n"
        "print(*sorted((after - before) & {'faiss', 'scipy', 'sklearn', 'hdbscan', 'joblib'}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, method], cwd=ROOT, capture_output=True, text=True
    )
    assert done.stdout == "\n", done.stderr


def test_what_is_loaded_is_there() -> None:
    for method in methods.METHODS:
        load_libraries(method)
