"""The owner's word in a clustering: frames that belong together, and frames that do not.

A link names frames, not clusters: labels come and go with every clustering, frames stay. Links
are taken in the order in which they were said, so the newest word on the same frames wins.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from daemon.messages import FloatArray

TOGETHER: Final = "together"
"""Must-link: the labels that hold these frames are one."""
APART: Final = "apart"
"""Cannot-link: no two of these frames share a label."""
BLOCK_ROWS: Final = 4096
"""Rows compared at once, so that a memory map is never loaded whole."""

IntArray = NDArray[np.int64]
Link = tuple[str, Sequence[int]]
"""`TOGETHER` or `APART`, and the frames, two or more."""


def apply_constraints(
    labels: IntArray,
    ids: IntArray,
    vectors: NDArray[Any],
    links: Sequence[Link],
    *,
    representatives: IntArray | None = None,
) -> IntArray:
    """Join and cut the clusters of a clustering as its owner said.

    A frame that is noise is looked for under the label of the labelled row nearest to it. A label
    that holds two frames which must be apart is cut: each of its rows goes to the nearest of
    them by cosine, as when the owner said so.

    Args:
        labels: (n,) int64, noise -1; not changed.
        ids: (n,) int64, frame of each row, ascending.
        vectors: (n, dim) descriptors of any real dtype; read in blocks.
        links: What was said, oldest first. Frames that are no rows are left out.
        representatives: Rows that may stand in for a frame that is noise; None: all.

    Returns:
        (n,) int64 labels, those given where nothing had to change. A joined label is that of the
        link's first frame; parts cut off get labels never used here.
    """
    result = labels
    for kind, frames in links:
        rows = _rows_of(ids, frames)
        if len(rows) < 2:
            continue
        found = _labels_of(result, rows, vectors, representatives)
        if kind == TOGETHER:
            result = _join(result, found)
        else:
            for label in np.unique(found[found >= 0]).tolist():
                result = _cut(result, label, rows[found == label], vectors)
    return result


def nearest_anchor(rows: NDArray[Any], anchors: NDArray[Any]) -> IntArray:
    """Which anchor each row is nearest to by cosine; the first on a tie.

    Args:
        rows: (n, dim) of any real dtype.
        anchors: (k, dim) of any real dtype.

    Returns:
        (n,) int64, 0 to k - 1.
    """
    # the length of a row changes no comparison between anchors
    similar = np.asarray(rows, dtype=np.float32) @ _unit(anchors).T
    return np.asarray(np.argmax(similar, axis=1), dtype=np.int64)


def _unit(rows: NDArray[Any]) -> FloatArray:
    single = np.asarray(rows, dtype=np.float32)
    length = np.linalg.norm(single, axis=1, keepdims=True)
    return np.asarray(single / np.maximum(length, np.float32(1e-12)), dtype=np.float32)


def _rows_of(ids: IntArray, frames: Sequence[int]) -> IntArray:
    wanted = np.array(frames, dtype=np.int64)
    rows = np.searchsorted(ids, wanted)
    inside = rows < len(ids)
    rows, wanted = rows[inside], wanted[inside]
    return np.asarray(rows[ids[rows] == wanted], dtype=np.int64)


def _labels_of(
    labels: IntArray, rows: IntArray, vectors: NDArray[Any], representatives: IntArray | None
) -> IntArray:
    """The label of each row; for noise that of its nearest labelled row, -1 without any."""
    found = labels[rows].copy()
    for position in np.flatnonzero(found < 0):
        found[position] = _nearest_label(labels, vectors[rows[position]], vectors, representatives)
    return found


def _nearest_label(
    labels: IntArray, vector: NDArray[Any], vectors: NDArray[Any], representatives: IntArray | None
) -> int:
    candidates = np.arange(len(labels)) if representatives is None else np.sort(representatives)
    candidates = candidates[labels[candidates] >= 0]
    best, label = -np.inf, -1
    for start in range(0, len(candidates), BLOCK_ROWS):
        block = candidates[start : start + BLOCK_ROWS]
        similar = _unit(vectors[block]) @ np.asarray(vector, dtype=np.float32)
        top = int(np.argmax(similar))
        if similar[top] > best:
            best, label = float(similar[top]), int(labels[block[top]])
    return label


def _join(labels: IntArray, found: IntArray) -> IntArray:
    wanted = found[found >= 0]
    if len(np.unique(wanted)) < 2:
        return labels
    return np.where(np.isin(labels, wanted), wanted[0], labels)


def _cut(labels: IntArray, label: int, anchors: IntArray, vectors: NDArray[Any]) -> IntArray:
    if len(anchors) < 2:
        return labels
    result = labels.copy()
    members = np.flatnonzero(labels == label)
    fresh = int(labels.max()) + 1
    names = np.array([label, *range(fresh, fresh + len(anchors) - 1)], dtype=np.int64)
    known = vectors[anchors]
    for start in range(0, len(members), BLOCK_ROWS):
        block = members[start : start + BLOCK_ROWS]
        result[block] = names[nearest_anchor(vectors[block], known)]
    # of equal pictures each frame named by the owner still begins its own part
    labelled = labels[anchors] == label
    result[anchors[labelled]] = names[labelled]
    return result
