"""`stillwatch cluster`: the clustering engine on the vectors of anybody, without a state folder.

The file is opened and checked here; the clustering itself runs in a process of its own, so that
its memory can be measured and Ctrl-C ends it at once.
"""

import json
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from daemon.clustering.descriptor_rows import BadRows, find_bad_rows, write_rows
from daemon.clustering.descriptors_file import Descriptors, open_descriptors
from daemon.clustering.labels_file import check_target, write_labels
from daemon.clustering.methods import MethodSettings, estimate_seconds
from daemon.jobs.child import Progress, run_child
from daemon.jobs.memory_peak import AnonymousMemoryPeak
from storage.errors import UsageError

WARN_SECONDS: Final = 30.0
"""Estimates above this are told before the work begins."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterRequest:
    """What to cluster and how.

    `source`: .npy or .npz; `key`: array of a .npz. `skip_bad_rows`: rows without a direction
    become noise instead of an error. `out`: file for the labels; `force`: it may be replaced.
    """

    source: Path
    key: str | None = None
    settings: MethodSettings = field(default_factory=MethodSettings)
    skip_bad_rows: bool = False
    out: Path | None = None
    force: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterResult:
    """What came of it.

    `labels` (n,) int64 in row order, clusters from 0, noise -1, rows that were skipped among the
    noise. `seconds`, `cpu_seconds`: of the clustering, without loading libraries and scores.
    `anonymous_bytes_peak`: of the clustering process, libraries and scores included. `scores`:
    as `InternalScores`. `key`, `dtype`: of the array.
    """

    labels: NDArray[np.int64]
    dim: int
    dtype: str
    key: str | None
    skipped_rows: int
    seconds: float
    cpu_seconds: float
    anonymous_bytes_peak: int
    scores: dict[str, Any]

    @property
    def sizes(self) -> NDArray[np.int64]:
        """Rows of each cluster, by label."""
        return np.bincount(self.labels[self.labels >= 0])

    @property
    def noise(self) -> int:
        """Rows in no cluster."""
        return int((self.labels < 0).sum())


def cluster_vectors(
    request: ClusterRequest, progress: Progress, note: Callable[[str], None]
) -> ClusterResult:
    """Do it.

    Args:
        request: What to do.
        progress: Called with stage, done, total (0: unknown).
        note: Called with what should be known before or beside the result.

    Raises:
        UsageError: Options or file cannot be used.
        DiskFullError: No room for a copy or for the labels.
        JobFailedError: The clustering process failed, or was killed for want of memory.
    """
    request.settings.check()
    if request.out is not None:
        check_target(request.out, request.source, force=request.force)
    with tempfile.TemporaryDirectory(prefix="stillwatch-") as folder:
        found = open_descriptors(request.source, request.key, Path(folder))
        if found.key is not None and request.key is None:
            note(f"taking the array {found.key} of {request.source}")
        kept = _usable_rows(request, found, progress, note)
        path = found.path
        if len(kept) < len(found.vectors):
            path = write_rows(found.vectors, kept, Path(folder) / "usable.npy")
        _tell_beforehand(request.settings, len(kept), found.vectors.shape[1], note)
        labels, facts, peak = _run(request.settings, path, progress)
    everywhere = np.full(len(found.vectors), -1, dtype=np.int64)
    everywhere[kept] = labels
    if request.out is not None:
        write_labels(request.out, everywhere, force=request.force)
    return ClusterResult(
        labels=everywhere,
        dim=found.vectors.shape[1],
        dtype=str(found.vectors.dtype),
        key=found.key,
        skipped_rows=len(found.vectors) - len(kept),
        anonymous_bytes_peak=peak,
        **facts,
    )


def _usable_rows(
    request: ClusterRequest, found: Descriptors, progress: Progress, note: Callable[[str], None]
) -> NDArray[np.int64]:
    """The numbers of the rows that can be clustered, ascending.

    Raises:
        UsageError: Some cannot and are not to be skipped, or none can.
    """
    n = len(found.vectors)
    bad = find_bad_rows(found.vectors, progress)
    kept = np.setdiff1d(np.arange(n), bad.rows, assume_unique=True)
    if len(kept) < n and (not request.skip_bad_rows or not len(kept)):
        raise _bad_rows_error(bad, n, request.source)
    if len(kept) < n:
        note(f"skipped {n - len(kept):,} of {n:,} rows, marked as noise: {bad.words}")
    return kept


def _bad_rows_error(bad: BadRows, n: int, source: Path) -> UsageError:
    if len(bad.rows) == n:
        which, hint = f"None of {n:,} rows has a direction", "Look at how the vectors were made."
    else:
        which = f"{len(bad.rows):,} of {n:,} rows have no direction"
        hint = "Mend them (rows count from 0), or mark them as noise with --skip-bad-rows."
    return UsageError(f"{which}: {bad.words}: {source}.", hint=hint, path=str(source))


def _tell_beforehand(
    settings: MethodSettings, n: int, dim: int, note: Callable[[str], None]
) -> None:
    settings.check_rows(n)
    if n < settings.smallest_cluster:
        note(f"{n:,} rows are fewer than a cluster needs ({settings.smallest_cluster}): all noise")
        return
    seconds = estimate_seconds(settings.method, n, dim)
    if seconds is not None and seconds > WARN_SECONDS:
        note(
            f"--method {settings.method} compares all pairs of {n:,} rows: it may take about"
            f" {duration(seconds)}, and four times that for twice the rows;"
            " --method density does not"
        )


def duration(seconds: float) -> str:
    """A rough time in words: `40 s`, `5 min`, `3 h`, `2 days`."""
    for size, unit, most in ((1, "s", 90), (60, "min", 90), (3600, "h", 48)):
        if seconds < size * most:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86400:.0f} days"


def _run(
    settings: MethodSettings, vectors: Path, progress: Progress
) -> tuple[NDArray[np.int64], dict[str, Any], int]:
    """Labels, facts and peak memory from the clustering process."""
    parameters = {"settings": asdict(settings), "vectors": str(vectors.resolve())}
    with (
        AnonymousMemoryPeak() as peak,
        run_child(
            "daemon.jobs.cluster_child", parameters, progress, nice=0, started=peak.watch
        ) as result,
        np.load(result, allow_pickle=False) as arrays,
    ):
        labels: NDArray[np.int64] = arrays["labels"]
        facts: dict[str, Any] = json.loads(str(arrays["facts"]))
    return labels, facts, peak.bytes
