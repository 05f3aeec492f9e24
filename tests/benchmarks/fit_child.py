"""One clustering in a process of its own: seconds, processor seconds, peak of anonymous memory.

`python -m tests.benchmarks.fit_child VECTORS.npy RESULT.npz OPTIONS_AS_JSON`; `fit_apart` runs
it. The libraries are imported and warmed up before the clock starts.
"""

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from daemon.clustering.space import ClusteringSpace
from daemon.jobs.memory_peak import AnonymousMemoryPeak

IntArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Fit:
    """What a fit took and what it found.

    `wall`, `cpu` in seconds, `anonymous_bytes` the peak of the whole process, `load` the load
    average at the end; `labels`, `representative` (n,); `space`: the clustering space;
    `stages`: stage -> seconds.
    """

    wall: float
    cpu: float
    anonymous_bytes: int
    load: float
    labels: IntArray
    representative: IntArray
    space: ClusteringSpace
    stages: dict[str, float]

    @property
    def busy(self) -> bool:
        """Whether others worked on the machine too: then processor seconds count."""
        return self.load > len(os.sched_getaffinity(0))

    def text(self) -> str:
        """For a table."""
        return f"{self.wall:.1f} s, {self.cpu:.1f} CPU-s"

    def note(self) -> str:
        """The stages and how busy the machine was."""
        parts = ", ".join(f"{name} {seconds:.1f}" for name, seconds in self.stages.items())
        return f"load {self.load:.1f}; {parts}"


def fit_apart(vectors: Path, work: Path, **options: float) -> Fit:
    """Cluster a file with `DensityClustering(**options)` in a fresh process."""
    result = work / "fit.npz"
    arguments = [str(vectors), str(result), json.dumps(options)]
    with AnonymousMemoryPeak() as peak:
        process = subprocess.Popen([sys.executable, "-m", "tests.benchmarks.fit_child", *arguments])
        peak.watch(process.pid)
        if process.wait() != 0:
            raise RuntimeError(f"clustering {vectors} ended with {process.returncode}")
    with np.load(result) as found:
        stages = json.loads(str(found["stages"]))
        fit = Fit(
            wall=float(found["wall"]),
            cpu=float(found["cpu"]),
            anonymous_bytes=peak.bytes,
            load=os.getloadavg()[0],
            labels=found["labels"],
            representative=found["representative"],
            space=ClusteringSpace(mean=found["mean"], axes=found["axes"]),
            stages=stages,
        )
    result.unlink()
    return fit


def main() -> None:
    """Entry point of the process."""
    from daemon.clustering.density import DensityClustering

    vectors, result, options = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
    DensityClustering(exact_rows=100).fit(np.random.default_rng(0).standard_normal((300, 80)))
    rows = np.load(vectors, mmap_mode="r")
    wall, cpu = time.perf_counter(), time.process_time()
    model = DensityClustering(**options).fit(rows)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    space = model.space_
    assert space is not None  # there are rows
    np.savez(
        result,
        wall=wall,
        cpu=cpu,
        labels=model.labels_,
        representative=model.bursts_.representative,
        mean=space.mean,
        axes=space.axes,
        stages=json.dumps(model.seconds_),
    )


if __name__ == "__main__":
    main()
