"""The process of `stillwatch cluster`: `python -m daemon.jobs.cluster_child RESULT`.

Clusters the rows of a .npy file that was checked before, scores the result and writes both. It
writes nothing else.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np

from daemon.clustering.internal_scores import score_clustering
from daemon.clustering.methods import MethodSettings, fit_labels, load_libraries
from daemon.jobs.child import read_parameters, report


def main() -> None:
    """Entry point of the process."""
    parameters = read_parameters()
    settings = MethodSettings(**parameters["settings"])
    vectors = np.load(parameters["vectors"], mmap_mode="r", allow_pickle=False)
    report("loading libraries", 0, 0)
    load_libraries(settings.method)
    began, cpu_began = time.perf_counter(), time.process_time()
    labels = fit_labels(settings, vectors, report)
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - cpu_began
    scores = score_clustering(vectors, labels, seed=settings.seed, progress=report)
    facts = {"seconds": seconds, "cpu_seconds": cpu_seconds, "scores": scores.as_json()}
    with Path(sys.argv[1]).open("wb") as file:
        np.savez(file, labels=labels, facts=np.array(json.dumps(facts)))


if __name__ == "__main__":
    main()
