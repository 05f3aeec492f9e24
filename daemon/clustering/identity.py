"""Permanent cluster ids across reclusterings, by maximum overlap.

Label numbers of two clusterings have nothing to do with each other. The Hungarian method finds
the one-to-one matching of old ids to new labels that keeps the most frames under their id;
taking the best label of each id one by one collides where clusters split or merge.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from daemon.messages import IdentityMatch

MIN_OVERLAP: Final = 0.2
"""Intersection over union below which a new cluster is not the continuation of an old one."""

IntArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class _Pairs:
    """Old id (by position), new label (by position) and the frames they share."""

    old: IntArray
    new: IntArray
    shared: IntArray


def match_identities(old_ids: IntArray, new_labels: IntArray) -> IdentityMatch:
    """Decide which new label continues which permanent id.

    Overlap is judged on the frames that had an id: a cluster that grew by new frames, or took
    in former noise, stays what it was.

    Args:
        old_ids: (n,) int64, permanent id of each frame before, -1 for none.
        new_labels: (n,) int64, label of each frame now, -1 for noise.

    Returns:
        `kept`: label -> id; `retired`: ids without a successor, ascending. On ties the older
        (smaller) id goes on, then the smaller label takes it.

    Raises:
        ValueError: The two arrays differ in shape.
    """
    if old_ids.shape != new_labels.shape or old_ids.ndim != 1:
        raise ValueError(f"Shapes differ: {old_ids.shape} ids, {new_labels.shape} labels.")
    ids, old = np.unique(old_ids[old_ids >= 0], return_inverse=True)
    labels, new = np.unique(new_labels[old_ids >= 0], return_inverse=True)
    pairs = _eligible_pairs(old, new, labels)
    kept: dict[int, int] = {}
    for group in _independent(pairs, len(ids), len(labels)):
        for i, j in _best_matching(group):
            kept[int(labels[j])] = int(ids[i])
    survivors = set(kept.values())
    return IdentityMatch(
        kept=dict(sorted(kept.items())),
        retired=tuple(int(i) for i in ids if int(i) not in survivors),
    )


def _eligible_pairs(old: IntArray, new: IntArray, labels: IntArray) -> _Pairs:
    """Pairs that share enough frames; `labels` are the values behind `new`."""
    codes, shared = np.unique(old * max(len(labels), 1) + new, return_counts=True)
    i, j = np.divmod(codes, max(len(labels), 1))
    union = np.bincount(old)[i] + np.bincount(new)[j] - shared if len(codes) else shared
    good = (labels[j] >= 0) & (shared >= MIN_OVERLAP * union)
    return _Pairs(i[good], j[good], shared[good].astype(np.int64))


def _independent(pairs: _Pairs, olds: int, news: int) -> list[_Pairs]:
    """Split into groups that share neither id nor label: each is a small dense problem."""
    if len(pairs.shared) == 0:
        return []
    size = olds + news
    graph = coo_array((pairs.shared, (pairs.old, pairs.new + olds)), shape=(size, size))
    group = connected_components(graph, directed=False)[1][pairs.old]
    order = np.argsort(group, kind="stable")
    cuts = np.flatnonzero(np.diff(group[order])) + 1
    return [
        _Pairs(pairs.old[part], pairs.new[part], pairs.shared[part])
        for part in np.split(order, cuts)
    ]


def _best_matching(pairs: _Pairs) -> list[tuple[int, int]]:
    """Maximum-overlap matching of one group, as (old position, new position)."""
    olds, i = np.unique(pairs.old, return_inverse=True)
    news, j = np.unique(pairs.new, return_inverse=True)
    # older ids and smaller labels earn a bonus that in sum stays below one shared frame
    bonus = (len(olds) - i) * (len(news) + 1) + (len(news) - j)
    unit = int(bonus.max()) * min(len(olds), len(news)) + 1
    gain = np.zeros((len(olds), len(news)))
    gain[i, j] = pairs.shared.astype(np.float64) * unit + bonus
    rows, columns = linear_sum_assignment(gain, maximize=True)
    return [
        (int(olds[r]), int(news[c])) for r, c in zip(rows, columns, strict=True) if gain[r, c] > 0
    ]
