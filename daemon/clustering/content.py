"""Choosing rows by what they hold, so that neither their order nor one row more matters."""

import hashlib
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from daemon.clustering.workers import in_parallel

CHUNK_ROWS: Final = 4_096


def content_keys(vectors: NDArray[Any], seed: int) -> NDArray[np.uint64]:
    """64-bit digest (n,) of the bytes of every row (BLAKE2b, RFC 7693); equal rows share one.

    Args:
        vectors: (n, dim), any dtype; read in chunks.
        seed: Of the digest; another seed gives another choice of rows.
    """
    salt = (seed % 2**64).to_bytes(8, "little")
    keys = np.empty(len(vectors), dtype="<u8")

    def digest(start: int) -> None:
        part = np.ascontiguousarray(vectors[start : start + CHUNK_ROWS])
        digests = [hashlib.blake2b(row, digest_size=8, salt=salt).digest() for row in part]
        keys[start : start + len(part)] = np.frombuffer(b"".join(digests), dtype="<u8")

    in_parallel(digest, range(0, len(vectors), CHUNK_ROWS))
    return keys.astype(np.uint64)


def distinct_rows(keys: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The first row of every content, and for each row (n,) which of them it equals."""
    _, first, same = np.unique(keys, return_index=True, return_inverse=True)
    order = np.argsort(first)
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    return first[order].astype(np.int64), place[same].astype(np.int64)


def sample_rows(keys: NDArray[np.uint64], size: int) -> NDArray[np.int64]:
    """At most `size` rows with the smallest keys, one of every content, in the order of the keys.

    The same contents are chosen, in the same order, whatever the order of the rows; one row more
    changes at most one of them.
    """
    _, first = np.unique(keys, return_index=True)
    return first[:size].astype(np.int64)
