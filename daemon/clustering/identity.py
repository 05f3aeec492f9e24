"""Permanent cluster ids across reclusterings, by maximum overlap.

Label numbers of two clusterings have nothing to do with each other. The Hungarian method finds
the one-to-one matching of old ids to new labels that keeps the most frames under their id;
taking the best label of each id one by one collides where clusters split or merge.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from daemon.messages import IdentityMatch

MIN_OVERLAP: Final = 0.2
"""Intersection over union below which a new cluster is not the continuation of an old one."""
SPLIT_SHARE: Final = 0.2
"""Share of an old cluster's frames that makes a born cluster a part split off from it."""
MERGE_SHARE: Final = 0.5
"""Share of a retired cluster's frames that makes the cluster that took them its heir."""

IntArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class _Pairs:
    """Old id (by position), new label (by position) and the frames they share."""

    old: IntArray
    new: IntArray
    shared: IntArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """So many `frames` of the cluster `cluster_id` went to the born label `label`."""

    cluster_id: int
    label: int
    frames: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """A cluster of `frames` frames without a successor; `heir`: the label that took most of it."""

    cluster_id: int
    frames: int
    heir: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What became of the clusters between two clusterings.

    `kept`: label -> the id that goes on; `returned`: label -> the id that comes back; `born`:
    label -> its number of frames, for labels that continue nothing.
    """

    kept: Mapping[int, int]
    returned: Mapping[int, int]
    born: Mapping[int, int]
    splits: Sequence[Split]
    ended: Sequence[Ending]


def follow_clusters(old_ids: IntArray, former_ids: IntArray, labels: IntArray) -> Changes:
    """Decide what every new label is: a cluster that goes on, comes back, or is born.

    A label that continues no living cluster brings one back whose former frames it overlaps
    enough. There the overlap is judged on all frames that had any id, now or formerly: a part
    split off from a living cluster is not the return of the few old frames in it.

    Args:
        old_ids: (n,) int64, the living cluster of each frame before, -1 for none.
        former_ids: (n,) int64, the cluster that may come back which each frame was in last,
            -1 for none. No id stands in both arrays.
        labels: (n,) int64, label of each frame now, -1 for noise.

    Raises:
        ValueError: The arrays differ in shape.
    """
    if former_ids.shape != old_ids.shape:
        raise ValueError(f"Shapes differ: {old_ids.shape} ids, {former_ids.shape} former ids.")
    match = match_identities(old_ids, labels)
    returned = _returns(old_ids, former_ids, labels, set(match.kept))
    values, sizes = np.unique(labels[labels >= 0], return_counts=True)
    born = {
        int(label): int(size)
        for label, size in zip(values, sizes, strict=True)
        if int(label) not in match.kept and int(label) not in returned
    }
    flows = _flows(old_ids, labels)
    ended = [_ending(flows, cluster_id) for cluster_id in match.retired]
    heirs = {(end.cluster_id, end.heir) for end in ended}
    splits = [
        Split(cluster_id=cluster_id, label=label, frames=frames)
        for cluster_id, (size, parts) in flows.items()
        for label, frames in parts.items()
        if label in born and frames >= SPLIT_SHARE * size and (cluster_id, label) not in heirs
    ]
    return Changes(kept=match.kept, returned=returned, born=born, splits=splits, ended=ended)


def _returns(
    old_ids: IntArray, former_ids: IntArray, labels: IntArray, taken: set[int]
) -> dict[int, int]:
    """Label -> id that comes back, among the labels that continue nothing."""
    last_ids = np.where(former_ids >= 0, former_ids, old_ids)
    known = last_ids >= 0
    ids, old = np.unique(last_ids[known], return_inverse=True)
    values, new = np.unique(labels[known], return_inverse=True)
    pairs = _eligible_pairs(old, new, values)
    gone = np.isin(ids, former_ids[former_ids >= 0])
    free = ~np.isin(values, list(taken))
    good = gone[pairs.old] & free[pairs.new]
    pairs = _Pairs(pairs.old[good], pairs.new[good], pairs.shared[good])
    return {int(values[j]): int(ids[i]) for i, j in _matching(pairs, len(ids), len(values))}


def _flows(old_ids: IntArray, labels: IntArray) -> dict[int, tuple[int, dict[int, int]]]:
    """Old id -> its number of frames, and how many of them went to which label."""
    ids, old, sizes = np.unique(old_ids[old_ids >= 0], return_inverse=True, return_counts=True)
    pairs, shared = np.unique(
        np.stack([old, labels[old_ids >= 0]], axis=1), axis=0, return_counts=True
    )
    flows: dict[int, tuple[int, dict[int, int]]] = {
        int(cluster_id): (int(size), {}) for cluster_id, size in zip(ids, sizes, strict=True)
    }
    for (position, label), frames in zip(pairs.tolist(), shared.tolist(), strict=True):
        if label >= 0:
            flows[int(ids[position])][1][label] = frames
    return flows


def _ending(flows: Mapping[int, tuple[int, dict[int, int]]], cluster_id: int) -> Ending:
    size, parts = flows[cluster_id]
    label = max(parts, key=lambda part: parts[part], default=None)
    heir = label if label is not None and parts[label] >= MERGE_SHARE * size else None
    return Ending(cluster_id=cluster_id, frames=size, heir=heir)


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
    kept = {int(labels[j]): int(ids[i]) for i, j in _matching(pairs, len(ids), len(labels))}
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


def _matching(pairs: _Pairs, olds: int, news: int) -> list[tuple[int, int]]:
    """Maximum-overlap matching, as (old position, new position)."""
    groups = _independent(pairs, olds, news)
    return [match for group in groups for match in _best_matching(group)]


def _independent(pairs: _Pairs, olds: int, news: int) -> list[_Pairs]:
    """Split into groups that share neither id nor label: each is a small dense problem."""
    if len(pairs.shared) == 0:
        return []
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

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
    from scipy.optimize import linear_sum_assignment  # a quarter second of every daemon's start

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
