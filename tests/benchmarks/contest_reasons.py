"""Why a method fails on a set: a sentence from the figures, not from opinion."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from daemon.clustering.density import DensityClustering
from tests.benchmarks import peers
from tests.benchmarks.contest import DBSCAN, FASTDUP, HDBSCAN, KMEANS, Contest, Entry, ari
from tests.benchmarks.peers import DBSCAN_EPS

GOOD: Final = 0.85
"""ARI from which on there is nothing to explain."""
MIXED: Final = 25
"""Per cent of pictures nearest to another class from which on the embedding is to blame."""
FASTDUP_SIMILARITY: Final = 0.96
"""Cosine from which on fastdup connects two pictures, its default."""


def reasons(contest: Contest) -> list[str]:
    """One sentence for each peer that stays below `GOOD`; Markdown list items."""
    weak = [e for e in contest.entries if e.method in _CAUSES and e.middle < GOOD]
    return [f"- {contest.data.name}, {entry.method}: {_sentence(contest, entry)}" for entry in weak]


def _sentence(contest: Contest, entry: Entry) -> str:
    mixed = 100 * np.mean(np.subtract(*_distances(contest)) > 0)
    if entry.method in (HDBSCAN, KMEANS) and mixed > MIXED:
        cause = f"for {mixed:.0f} % of the pictures the nearest one is of another class: no density"
        cause += " and no centre parts what the embedding mixes"
    else:
        cause = _CAUSES[entry.method](contest)
    return f"{_what(contest.data.labels, entry)}; {cause}."


def _what(labels: NDArray[np.str_], entry: Entry) -> str:
    """What it made of the classes."""
    found, classes = entry.full.labels, len(np.unique(labels))
    clustered = found >= 0
    if not clustered.any():
        return "calls every picture noise"
    largest = 100 * np.bincount(found[clustered]).max() / len(found)
    pieces = np.mean([_most(found[clustered & (labels == label)]) for label in np.unique(labels)])
    pure = sum(_most(labels[found == name]) for name in np.unique(found[clustered]))
    return (
        f"{entry.full.clusters} cluster(s) for {classes} classes, {100 * entry.full.noise:.0f} % "
        f"noise, {largest:.0f} % of the pictures in the largest cluster; the largest piece of a "
        f"class has {pieces:.0f} pictures, {100 * pure / clustered.sum():.0f} % of the clustered "
        "ones lie with their cluster's main class"
    )


def _most(values: NDArray[np.int64] | NDArray[np.str_]) -> int:
    """How often the most frequent value occurs."""
    return int(np.unique(values, return_counts=True)[1].max(initial=0))


def _distances(contest: Contest) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Cosine distance (n,) of each row to the nearest of its own class and of another class."""
    unit, labels = contest.data.vectors.astype(np.float64), contest.data.labels
    apart = 1 - unit @ unit.T
    np.fill_diagonal(apart, np.inf)
    same = labels[:, None] == labels[None, :]
    own: NDArray[np.float64] = np.where(same, apart, np.inf).min(axis=1)
    other: NDArray[np.float64] = np.where(same, np.inf, apart).min(axis=1)
    return own, other


def _of_dbscan(contest: Contest) -> str:
    own, other = _distances(contest)
    return (
        f"within its one radius of {DBSCAN_EPS} lie the nearest picture of another class for "
        f"{100 * np.mean(other <= DBSCAN_EPS):.0f} % of the pictures and the nearest of the same "
        f"class for {100 * np.mean(own <= DBSCAN_EPS):.0f} %: no radius suits two sets"
    )


def _of_hdbscan(contest: Contest) -> str:
    default = DensityClustering()
    coarse = peers.plain_hdbscan(
        contest.data.vectors, default.min_cluster_size, default.min_samples
    )
    return (
        f"five pictures make a cluster where a class has {_class_sizes(contest)}, so views are "
        f"taken for classes: with our {default.min_cluster_size} and {default.min_samples} in "
        f"place of its defaults it reaches {ari(contest.data.labels, coarse.labels):.3f} here, "
        "the rest is the space"
    )


def _of_fastdup(contest: Contest) -> str:
    own, other = _distances(contest)
    near = np.mean(np.minimum(own, other) <= 1 - FASTDUP_SIMILARITY)
    return (
        "it links a picture to its one nearest neighbour, and only from similarity "
        f"{FASTDUP_SIMILARITY} on, which {100 * near:.0f} % of the pictures have: pairs and chains"
    )


def _of_kmeans(contest: Contest) -> str:
    unit, labels = contest.data.vectors, contest.data.labels
    means = [unit[labels == label].mean(axis=0) for label in np.unique(labels)]
    spreads = [1 - float(mean @ mean) for mean in means]
    return (
        "told the number of classes, it still cuts halfway between two centres, whatever lies "
        f"there: the classes ({_class_sizes(contest)} pictures) have variances of "
        f"{min(spreads):.3f} to {max(spreads):.3f}"
    )


def _class_sizes(contest: Contest) -> str:
    sizes = np.unique(contest.data.labels, return_counts=True)[1]
    return f"{sizes.min()}" if sizes.min() == sizes.max() else f"{sizes.min()} to {sizes.max()}"


_CAUSES: Final = {
    HDBSCAN: _of_hdbscan,
    DBSCAN: _of_dbscan,
    KMEANS: _of_kmeans,
    FASTDUP: _of_fastdup,
}
