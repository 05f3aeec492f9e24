"""The reclustering process: `python -m daemon.jobs.recluster_child RESULT`.

Reads a frozen snapshot of the vectors, clusters them and writes arrays. It writes nothing else;
hdbscan and scikit-learn are imported in this process only.
"""

import sys
from pathlib import Path

import numpy as np

from daemon.clustering.recluster import recluster
from daemon.jobs.child import read_parameters, report
from storage.embeddings import clustered_vectors
from storage.engine import Database


def main() -> None:
    """Entry point of the process."""
    parameters = read_parameters()
    report("reading vectors", 0, 1)
    db = Database(Path(parameters["state_dir"]), read_only=True)
    try:
        with db.read() as connection:
            vectors = clustered_vectors(connection, parameters["space_id"])
    finally:
        db.close()
    report("clustering", 0, len(vectors.ids))
    result = recluster(
        vectors.rows,
        min_cluster_size=parameters["min_cluster_size"],
        min_samples=parameters["min_samples"],
        collapse_distance=parameters["collapse_distance"],
    )
    labels = np.array(sorted(result.scales), dtype=np.int64)
    with Path(sys.argv[1]).open("wb") as file:
        np.savez(
            file,
            ids=vectors.ids,
            labels=result.labels,
            membership=result.membership,
            outlier_scores=result.outlier_scores,
            weights=result.weights,
            scale_labels=labels,
            scales=np.array([result.scales[int(k)] for k in labels], dtype=np.float64),
            medoids=np.array([result.medoids[int(k)] for k in labels], dtype=np.int64),
            scores=result.scores,
            seconds=result.seconds,
        )


if __name__ == "__main__":
    main()
