"""How fast clustering is, what it holds in memory and whether it finds what is there.

    python -m tests.benchmarks.clustering_scale WORK [--quick] [--other FOLDER ...]

WORK takes the planted sets (1.1 GB for the largest, removed afterwards). FOLDER is a planted set
of another generator (`X.npy`, `y.npy`, `burst.npy`) to compare with the project's own.
"""

import argparse
import math
import shutil
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from daemon.clustering.hdbscan_internals import cut_tree, spanning_tree
from daemon.clustering.space import UnitRows, scaled
from tests.benchmarks.fit_child import Fit, fit_apart
from tests.benchmarks.planted import UNEVEN, PlantedSet, planted_set
from tests.benchmarks.planted_statistics import describe
from tests.benchmarks.rows import Row, all_hold, table

LARGEST, QUICK_LARGEST = 416_314, 100_000
WALL_LIMITS: Final = {50_000: 5.0, 100_000: 12.0}
LARGEST_WALL, LARGEST_CPU, LARGEST_BYTES = 75.0, 110.0, 1.3e9
GROWTH: Final = 1.3
AGREEMENT: Final = 0.97
COUNT_DIFFERENCE: Final = 0.02
PLANTED_ARI, PLANTED_NOISE = 0.98, 0.08
COLLAPSE_COST: Final = 0.005
FASTER: Final = 8.0
MIN_CLUSTER_SIZE: Final = 15

IntArray = NDArray[np.int64]


def measure(work: Path, quick: bool, other: Sequence[Path] = ()) -> list[Row]:
    """All rows of the engine.

    Args:
        work: An existing folder for the planted sets; they are removed again.
        quick: 100,000 frames are the largest set, and agreement is measured on 20,000 only.
        other: Planted sets of other generators.
    """
    scratch = work / "clustering-scale"
    scratch.mkdir(exist_ok=True)
    try:
        rows = _speed(scratch, QUICK_LARGEST if quick else LARGEST)
        for count in (20_000,) if quick else (20_000, 50_000, 100_000):
            rows += _agreement(scratch, count)
        rows += _planted(scratch, quick)
        rows.append(_burst_free(scratch))
        rows.append(_against_hdbscan(scratch))
        rows += _generators(scratch, other)
    finally:
        shutil.rmtree(scratch)
    return rows


def holds_in_time(fit: Fit, limit: float) -> bool:
    """Whether a fit took at most `limit` seconds; where others work too, processor seconds."""
    return fit.wall <= limit or (fit.busy and fit.cpu <= limit)


def ari_inside(truth: IntArray, labels: IntArray) -> float:
    """Adjusted Rand index over the planted clusters' frames, noise counted as singletons."""
    from sklearn.metrics import adjusted_rand_score

    alone = np.where(labels < 0, labels.max(initial=-1) + 1 + np.arange(len(labels)), labels)
    inside = truth >= 0
    return float(adjusted_rand_score(truth[inside], alone[inside]))


def _speed(work: Path, largest: int) -> list[Row]:
    """Seconds and memory of three sizes, and how the processor time grows."""
    rows = []
    fits: dict[int, Fit] = {}
    for count in sorted({*WALL_LIMITS, largest}):
        planted = planted_set(work, count)
        fit = fits[count] = _fit(planted, work)
        name = f"{count:,} x 1,280 from a float16 file, fit"
        limit = WALL_LIMITS.get(count, LARGEST_WALL)
        rows.append(
            Row(name, fit.text(), f"<= {limit:.0f} s", holds_in_time(fit, limit), fit.note())
        )
        if count == largest:
            memory = f"{fit.anonymous_bytes / 1e9:.2f} GB"
            holds = fit.anonymous_bytes <= LARGEST_BYTES
            rows += [
                Row(f"{name}: CPU", f"{fit.cpu:.1f} s", "<= 110 s", fit.cpu <= LARGEST_CPU),
                Row(f"{name}: anonymous memory, peak", memory, "<= 1.3 GB", holds),
                *_truth(f"{count:,}", planted, fit),
            ]
    small = min(fits)
    growth = math.log(fits[largest].cpu / fits[small].cpu) / math.log(largest / small)
    name = f"growth of CPU time, {small:,} to {largest:,}: exponent"
    rows.append(Row(name, f"{growth:.2f}", f"<= {GROWTH}", growth <= GROWTH))
    return rows


def _truth(name: str, planted: PlantedSet, fit: Fit) -> list[Row]:
    """Agreement with the planted clusters."""
    ari = ari_inside(planted.labels, fit.labels)
    noise = float((fit.labels < 0).mean())
    planted_noise = float((planted.labels < 0).mean())
    counts = f"{fit.labels.max() + 1} clusters of {planted.labels.max() + 1}"
    return [
        Row(f"{name}: ARI with the planted clusters", f"{ari:.4f}", ">= 0.98", ari >= PLANTED_ARI,
            counts),
        Row(f"{name}: noise", f"{100 * noise:.1f} %", "<= 8 %", noise <= PLANTED_NOISE,
            f"planted {100 * planted_noise:.1f} %"),
    ]  # fmt: skip


def _planted(work: Path, quick: bool) -> list[Row]:
    """Other draws, and clusters of uneven spread."""
    rows = []
    for seed in (1,) if quick else (1, 2):
        planted = planted_set(work, 50_000, seed=seed)
        rows += _truth(f"50,000, seed {seed}", planted, _fit(planted, work))
    aris, noises = [], []
    for seed in range(3):
        planted = planted_set(work, 20_000, seed=seed, spread=UNEVEN)
        fit = _fit(planted, work)
        aris.append(ari_inside(planted.labels, fit.labels))
        noises.append(float((fit.labels < 0).mean()))
    ari, noise = float(np.median(aris)), float(np.median(noises))
    name = "20,000, uneven spreads, median of three draws"
    each = ", ".join(f"{value:.4f}" for value in aris)
    return [
        *rows,
        Row(f"{name}: ARI", f"{ari:.4f}", ">= 0.98", ari >= PLANTED_ARI, f"each: {each}"),
        Row(f"{name}: noise", f"{100 * noise:.1f} %", "<= 8 %", noise <= PLANTED_NOISE),
    ]


def _agreement(work: Path, count: int) -> list[Row]:
    """The same representatives in the same space, but the exact tree of hdbscan."""
    from sklearn.metrics import adjusted_rand_score

    planted = planted_set(work, count)
    fit = _fit(planted, work)
    names, weights = np.unique(fit.representative, return_counts=True)
    points = fit.space.project(UnitRows(planted.vectors).take(names))
    tree = spanning_tree(points.astype(np.float64), np.zeros(len(points)))
    exact = cut_tree(tree, weights.astype(np.int64), MIN_CLUSTER_SIZE)
    ari = float(adjusted_rand_score(exact.labels, fit.labels[names]))
    ours, theirs = len(np.unique(fit.labels[fit.labels >= 0])), int(exact.labels.max()) + 1
    difference = abs(ours - theirs) / theirs
    name = f"{count:,}: agreement with exact HDBSCAN on the {len(names):,} representatives"
    return [
        Row(f"{name}: ARI", f"{ari:.4f}", ">= 0.97", ari >= AGREEMENT, "noise is one class"),
        Row(f"{name}: clusters", f"{ours} against {theirs}", "within 2 %",
            difference <= COUNT_DIFFERENCE),
    ]  # fmt: skip


def _burst_free(work: Path) -> Row:
    """What the collapse costs where there is nothing to collapse."""
    planted = planted_set(work, 20_000, bursts=False)
    with_collapse = ari_inside(planted.labels, _fit(planted, work).labels)
    without = ari_inside(planted.labels, _fit(planted, work, collapse_distance=0.0).labels)
    cost = without - with_collapse
    note = f"{with_collapse:.4f} with, {without:.4f} without"
    name = "20,000 without bursts: ARI that the collapse costs"
    return Row(name, f"{cost:.4f}", "<= 0.005", cost <= COLLAPSE_COST, note)


def _against_hdbscan(work: Path) -> Row:
    """Our whole fit against hdbscan's of the finished 64-dimensional rows, both alone."""
    import hdbscan

    planted = planted_set(work, 50_000)
    fit = _fit(planted, work)
    points = scaled(fit.space.coordinates(UnitRows(planted.vectors))).astype(np.float64)
    model = hdbscan.HDBSCAN(min_cluster_size=MIN_CLUSTER_SIZE, min_samples=1)
    wall, cpu = time.perf_counter(), time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(points)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    times = cpu / fit.cpu if fit.busy else wall / fit.wall
    note = (
        f"hdbscan {wall:.1f} s, {cpu:.1f} CPU-s, ARI with the planted clusters "
        f"{ari_inside(planted.labels, model.labels_):.3f}; ours {fit.text()}; "
        f"{wall / fit.wall:.1f} times in wall time, {cpu / fit.cpu:.1f} in CPU-s; "
        f"load {fit.load:.1f}"
    )
    name = "50,000: times faster than hdbscan on PCA-64"
    return Row(name, f"{times:.1f}", ">= 8", times >= FASTER, note)


def _generators(work: Path, other: Sequence[Path]) -> list[Row]:
    """What the planted sets look like; no mark, but the ranges that they are made after."""
    own = planted_set(work, 20_000)
    name = "planted set, 20,000"
    rows = [Row(f"{name}: ours", describe(own), "as described", None)]
    for folder in other:
        burst = np.load(folder / "burst.npy").astype(np.int64)
        labels = np.load(folder / "y.npy").astype(np.int64)
        vectors = np.load(folder / "X.npy", mmap_mode="r")
        theirs = PlantedSet(folder / "X.npy", vectors, labels, burst)
        name = f"planted set of another generator, {len(vectors):,}"
        rows.append(Row(name, describe(theirs), "", None))
        rows += _truth(name, theirs, _fit(theirs, work))
    return rows


def _fit(planted: PlantedSet, work: Path, **options: float) -> Fit:
    return fit_apart(planted.path, work, **options)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; 1 where a row does not hold."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--other", type=Path, nargs="*", default=[])
    chosen = parser.parse_args(arguments)
    rows = measure(chosen.work, chosen.quick, chosen.other)
    print(table(rows))
    return 0 if all_hold(rows) else 1


if __name__ == "__main__":
    sys.exit(main())
