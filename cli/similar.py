"""`similar`: the frames most like a picture, or how alike two pictures are."""

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.context import Context, command
from cli.filters import parse_since, parse_until, require_camera, split_states
from cli.output import Column
from storage.errors import UsageError
from storage.reading import Reader
from storage.resolving import resolve_cluster
from storage.states import STATES

if TYPE_CHECKING:
    from cli.similarity import Filters

COLUMNS = (
    Column("PERCENT", lambda row: f"{row['percent']:.1f}", right=True),
    Column("DISTANCE", "distance", right=True),
    Column("FRAME", "frame"),
    Column("STATE", "state"),
    Column("CAMERA", "camera"),
    Column("CAPTURED", "captured_at", is_time=True),
    Column("CLUSTER", lambda row: row["cluster_name"] or row["cluster"]),
    Column("PATH", "path"),
)


def register(app: typer.Typer) -> None:
    """Add the command of this module to the app."""
    app.command(
        "similar",
        rich_help_panel="Review",
        epilog="Examples: stillwatch similar f12 -k 5 --camera yard"
        " · stillwatch similar a.jpg b.jpg",
    )(similar)


@command
def similar(
    context: Context,
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGE [OTHER]",
            help="A picture file or a frame id; with a second one: how alike the two are.",
        ),
    ],
    k: Annotated[int, typer.Option("-k", min=1, help="How many frames to list.")] = 10,
    camera: Annotated[str | None, typer.Option("--camera", help="Only this camera.")] = None,
    cluster: Annotated[
        str | None, typer.Option("--cluster", help="Only this cluster (id or name).")
    ] = None,
    state: Annotated[
        list[str] | None,
        typer.Option(
            "--state",
            metavar="STATE",
            help="Only this state; may be repeated. Anything else is, as with every command, the"
            " state folder.",
            autocompletion=lambda: list(STATES),
        ),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(
            "--since", help="Only what was taken since: 2026-05-01, 2026-05-01T12:00, 12h or 7d."
        ),
    ] = None,
    until: Annotated[
        str | None,
        typer.Option("--until", help="Only what was taken until then; a date counts as a whole."),
    ] = None,
    trees: Annotated[
        int | None,
        typer.Option(
            "--trees", min=1, help="Build an Annoy forest of so many trees for this question."
        ),
    ] = None,
    search_k: Annotated[
        int, typer.Option("--search-k", min=-1, help="Annoy nodes to look at; -1: its default.")
    ] = -1,
) -> int:
    """List the frames most like a picture, or say how alike two pictures are (0 to 100 %).

    Percent is 100 x cosine of the two embeddings, at least 0; distance is 1 - cosine.
    """
    states, folder = split_states(state or [])
    context = replace(context, state=folder or context.state)
    given = (camera, cluster, since, until)
    if len(images) > 2 or (len(images) == 2 and (states or any(given))):
        raise UsageError(
            "Name one picture, or two to compare without any filter.",
            hint="`stillwatch similar --help`",
        )
    if len(images) == 2:
        return _compare(context, images[0], images[1])
    from cli.similarity import nearest

    filters = _filters(context, camera, cluster, tuple(states), since, until)
    found = nearest(context, images[0], filters, k=k, trees=trees, search_k=search_k)
    context.output.listing(COLUMNS, found, empty="no frame to compare with")
    return 0


def _compare(context: Context, first: str, second: str) -> int:
    from cli.similarity import compare

    alike: dict[str, Any] = compare(context, first, second)
    if context.output.as_json:
        context.output.json(alike)
    else:
        context.output.lines([f"{alike['percent']:.1f} %"])
    return 0


def _filters(
    context: Context,
    camera: str | None,
    cluster: str | None,
    states: tuple[str, ...],
    since: str | None,
    until: str | None,
) -> "Filters":
    from cli.similarity import Filters

    now = time.time()
    with Reader(context.state_dir) as reader:
        require_camera(reader, camera)
        number = None if cluster is None else resolve_cluster(reader, cluster)
    return Filters(
        camera=camera,
        cluster=number,
        states=states,
        since=None if since is None else parse_since(since, now),
        until=None if until is None else parse_until(until, now),
    )
