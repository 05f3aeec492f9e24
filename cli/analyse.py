"""`cluster`: the clustering engine on vectors from a file."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from cli.context import Context, command
from cli.output import Output
from cli.screen import human_bytes

if TYPE_CHECKING:
    from daemon.jobs.cluster_vectors import ClusterRequest, ClusterResult

LARGEST: Final = 10
"""Clusters whose sizes are printed."""
SCORES_NOTE: Final = (
    "Calinski-Harabasz, Davies-Bouldin and silhouette see only how compact and separate groups are."
    " On pictures of many kinds they often rank settings against the truth:"
    " do not choose settings by them alone."
)

SPARSE_HINTS: Final = {
    "density": "try a smaller --min-cluster-size",
    "hdbscan": "try a smaller --min-cluster-size, or --method density",
    "dbscan": "try a larger --eps",
}
"""What to try where everything is noise."""


def register(app: typer.Typer) -> None:
    """Add the commands of this module to the app."""
    app.command(
        "cluster",
        rich_help_panel="Analyse",
        epilog="Examples: stillwatch cluster vectors.npy --out labels.npy ·"
        " stillwatch cluster vectors.npy --method kmeans --clusters 20",
    )(cluster)


@command
def cluster(
    context: Context,
    vectors: Annotated[
        Path,
        typer.Argument(
            metavar="VECTORS", help="A .npy or .npz file with one row of numbers a picture."
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="FILE", help="Write the labels: int64 .npy in row order, noise -1."
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace the file that --out names.")
    ] = False,
    method: Annotated[
        str,
        typer.Option("--method", metavar="NAME", help="density (ours), hdbscan, dbscan or kmeans."),
    ] = "density",
    min_cluster_size: Annotated[
        int | None,
        typer.Option(
            "--min-cluster-size",
            min=2,
            help="Rows that make a cluster. Default: density 15, hdbscan 5.",
        ),
    ] = None,
    clusters: Annotated[
        int | None, typer.Option("--clusters", min=1, help="How many; for kmeans only.")
    ] = None,
    eps: Annotated[
        float | None,
        typer.Option("--eps", help="Cosine distance of neighbours; for dbscan only. Default: 0.3."),
    ] = None,
    seed: Annotated[
        int,
        typer.Option(
            "--seed", min=0, help="Of every random choice; the same seed, the same result."
        ),
    ] = 0,
    key: Annotated[
        str | None, typer.Option("--key", metavar="NAME", help="Which array of a .npz.")
    ] = None,
    skip_bad_rows: Annotated[
        bool,
        typer.Option(
            "--skip-bad-rows", help="Mark rows with NaN, infinity or only zeros as noise."
        ),
    ] = False,
) -> int:
    """Cluster vectors of your own from a file, and score the result; needs no state folder."""
    from daemon.clustering.methods import MethodSettings
    from daemon.jobs.cluster_vectors import ClusterRequest, cluster_vectors

    request = ClusterRequest(
        source=vectors,
        key=key,
        settings=MethodSettings(
            method=method, min_cluster_size=min_cluster_size, clusters=clusters, eps=eps, seed=seed
        ),
        skip_bad_rows=skip_bad_rows,
        out=out,
        force=force,
    )
    output = context.output
    with _ended_cleanly(), output.progress() as report:
        result = cluster_vectors(request, report, output.note)
    if output.as_json:
        output.json(_as_json(request, result))
    else:
        _print(output, request, result)
    return 0


@contextmanager
def _ended_cleanly() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the command as Ctrl-C does: temporary copies are removed."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {
        number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _as_json(request: "ClusterRequest", result: "ClusterResult") -> dict[str, Any]:
    scores = dict(result.scores)
    return {
        "n": len(result.labels),
        "dim": result.dim,
        "dtype": result.dtype,
        "key": result.key,
        "method": request.settings.method,
        "settings": request.settings.in_force,
        "seed": request.settings.seed,
        "clusters": len(result.sizes),
        "noise": result.noise,
        "skipped_rows": result.skipped_rows,
        "seconds": round(result.seconds, 3),
        "cpu_seconds": round(result.cpu_seconds, 3),
        "anonymous_bytes_peak": result.anonymous_bytes_peak,
        "scores_reason": scores.pop("reason"),
        **scores,
        "largest": [{"label": label, "size": size} for label, size in _largest(result)],
        "out": None if request.out is None else str(request.out),
    }


def _largest(result: "ClusterResult") -> list[tuple[int, int]]:
    """Label and size of the largest clusters, falling."""
    sizes = result.sizes.tolist()
    return sorted(enumerate(sizes), key=lambda pair: -pair[1])[:LARGEST]


def _print(output: Output, request: "ClusterRequest", result: "ClusterResult") -> None:
    settings, n = request.settings, len(result.labels)
    with_settings = ", ".join(f"{name} {value}" for name, value in settings.in_force.items())
    facts = {
        "vectors": f"{n:,} x {result.dim:,} {result.dtype}",
        "method": f"{settings.method} ({with_settings})",
        "clusters": f"{len(result.sizes):,}",
        "noise": f"{result.noise:,} ({100 * result.noise / n:.1f} %)"
        + (f", {result.skipped_rows:,} of them skipped" if result.skipped_rows else ""),
        "largest": _sizes(result),
        "time": f"{result.seconds:.2f} s ({result.cpu_seconds:.2f} s of CPU),"
        " without loading libraries and scoring",
        "memory": f"{human_bytes(result.anonymous_bytes_peak)} at the peak"
        " (anonymous: the mapped file is not counted)",
        **_score_facts(result.scores),
    }
    if request.out is not None:
        facts["labels"] = f"{request.out} (int64, row order, noise -1)"
    output.facts({name: value for name, value in facts.items() if value})
    if result.scores["reason"] is None:
        output.note(SCORES_NOTE)
    if not len(result.sizes) and settings.method != "kmeans" and n >= settings.smallest_cluster:
        output.note(f"No group is dense enough: {SPARSE_HINTS[settings.method]}.")
    if request.out is None:
        output.note("The labels were not kept; --out labels.npy writes them.")


def _sizes(result: "ClusterResult") -> str:
    sizes = " · ".join(f"{size:,}" for _, size in _largest(result))
    rest = len(result.sizes) - LARGEST
    return f"{sizes} rows, and {rest:,} smaller" if rest > 0 else sizes and f"{sizes} rows"


def _score_facts(scores: dict[str, Any]) -> dict[str, str]:
    if scores["reason"] is not None:
        return {"scores": f"none: {scores['reason']}"}
    of = f"{scores['silhouette_rows']:,} clustered rows"
    drawn = f"{of} drawn at random" if scores["silhouette_sampled"] else f"all {of}"
    return {
        "Calinski-Harabasz": f"{scores['calinski_harabasz']:.4g} (higher is better)",
        "Davies-Bouldin": f"{scores['davies_bouldin']:.4g} (lower is better)",
        "silhouette": f"{scores['silhouette']:.3f} (-1 to 1, higher is better; cosine, {drawn})",
    }
