"""The reclustering process: `python -m daemon.jobs.recluster_child RESULT`.

Copies the vectors of a frozen moment into a memory map beside RESULT, clusters them, applies the
owner's word and writes arrays (RESULT) and the frames' places (a SQLite file beside it). It
writes nothing else; hdbscan and scikit-learn are imported in this process only.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from daemon.clustering.constraints import apply_constraints
from daemon.clustering.recluster import recluster
from daemon.jobs.child import read_parameters, report
from daemon.jobs.snapshot import Snapshot, write_snapshot
from daemon.messages import Clustering
from storage.engine import Database
from storage.placements import PLACES_NAME, Placements, write_placements


def main() -> None:
    """Entry point of the process."""
    parameters = read_parameters()
    out = Path(sys.argv[1])
    db = Database(Path(parameters["state_dir"]), read_only=True)
    try:
        snapshot = write_snapshot(
            db,
            parameters["space_id"],
            out.with_name("vectors.npy"),
            lambda done, total: report("copying vectors", done, total),
        )
    finally:
        db.close()
    result = cluster_snapshot(snapshot, parameters)
    report("writing places", 0, 1)
    write_placements(out.with_name(PLACES_NAME), placements_of(snapshot.frame_ids, result))
    labels = np.array(sorted(result.scales), dtype=np.int64)
    with out.open("wb") as file:
        np.savez(
            file,
            ids=snapshot.frame_ids,
            labels=result.labels,
            scale_labels=labels,
            scales=np.array([result.scales[int(k)] for k in labels], dtype=np.float64),
            medoids=np.array([result.medoids[int(k)] for k in labels], dtype=np.int64),
            scores=result.scores,
            seconds=result.seconds,
        )


def cluster_snapshot(snapshot: Snapshot, parameters: dict[str, Any]) -> Clustering:
    """Cluster; what the owner joined or parted is applied before anything is measured."""

    def relabel(labels: NDArray[np.int64], representatives: NDArray[np.int64]) -> NDArray[np.int64]:
        return apply_constraints(
            labels,
            snapshot.frame_ids,
            snapshot.vectors,
            parameters["links"],
            representatives=representatives,
        )

    return recluster(
        snapshot.vectors,
        min_cluster_size=parameters["min_cluster_size"],
        min_samples=parameters["min_samples"],
        collapse_distance=parameters["collapse_distance"],
        relabel=relabel,
        progress=report,
    )


def placements_of(frame_ids: NDArray[np.int64], result: Clustering) -> Placements:
    """The rows of a clustering as they go into the database."""
    return Placements(
        frame_ids=frame_ids,
        labels=result.labels,
        membership=result.membership,
        outlier_scores=result.outlier_scores,
        distances=result.distances,
        nearest=frame_ids[result.representative],
        weights=result.weights,
        scales=result.representative_scales,
        scores=result.representative_scores,
    )


if __name__ == "__main__":
    main()
