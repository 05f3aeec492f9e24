"""Blocks of numeric work on several threads, each with one thread of its own inside the libraries.

The libraries' own threads wait for each other after every small product, and where other
programs use the same cores that waiting costs far more than the work: measured on two loaded
cores, a product of 0.3 ms took 16 ms of processor time. Whole blocks wait for nobody.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


@contextmanager
def one_thread_each() -> Iterator[None]:
    """Keep BLAS and OpenMP to one thread; `in_parallel` shares the work out inside."""
    import faiss  # noqa: F401 - brings a BLAS of its own, which must be there to be limited
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        yield


def in_parallel(work: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """`work` of every item, in their order; the first error in that order is raised.

    As many threads as `OMP_NUM_THREADS` allows, else as there are cores for this process. Numpy,
    scipy and faiss release the interpreter's lock in the long operations.
    """
    allowed = os.environ.get("OMP_NUM_THREADS", "")
    threads = int(allowed) if allowed.isdecimal() else len(os.sched_getaffinity(0))
    with ThreadPoolExecutor(max(1, threads), initializer=_one_thread_here) as pool:
        return list(pool.map(work, items))


def _one_thread_here() -> None:
    """OpenMP's limit belongs to the thread that sets it."""
    import faiss

    faiss.omp_set_num_threads(1)
