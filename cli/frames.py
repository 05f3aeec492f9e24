"""`frames`, `show`, `why`: what came, what state it is in, and the reasons."""

import json
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.context import Context, command
from cli.filters import parse_since, require_camera, split_states
from cli.output import Column, printable
from cli.words import explain
from storage.listing import frame_object, frame_row, frames
from storage.names import FRAME, format_id, path_fields
from storage.reading import Reader, iso_time
from storage.resolving import resolve_cluster, resolve_frame
from storage.space_listing import gap_reason
from storage.states import STATES

FRAME_COLUMNS = (
    Column("ID", "id"),
    Column("STATE", "state"),
    Column("CAMERA", "camera"),
    Column("CAPTURED", "captured_at", is_time=True),
    Column("CLUSTER", "cluster"),
    Column("DISTANCE", "distance", right=True),
    Column("LIMIT", "max_distance", right=True),
    Column("OF", "duplicate_of"),
    Column("PATH", "path"),
)

FrameArgument = Annotated[
    str,
    typer.Argument(
        metavar="FRAME", help="Frame id (f12), a unique beginning of it, or the file's path."
    ),
]


def register(app: typer.Typer) -> None:
    """Add the commands of this module to the app."""
    panel = "Look"
    app.command(
        "frames",
        rich_help_panel=panel,
        epilog="Example: stillwatch frames --state novel --since 1d --limit 20",
    )(list_frames)
    app.command("show", rich_help_panel=panel, epilog="Example: stillwatch show f12 --json")(
        show_frame
    )
    app.command(
        "why",
        rich_help_panel=panel,
        epilog="Examples: stillwatch why f12 · stillwatch why f12 --picture f12.png",
    )(why)


@command
def list_frames(
    context: Context,
    state: Annotated[
        list[str] | None,
        typer.Option(
            "--state",
            metavar="STATE",
            help=f"Only this state ({', '.join(STATES)}); may be repeated. Anything else is, as "
            "with every command, the state folder.",
            autocompletion=lambda: list(STATES),
        ),
    ] = None,
    camera: Annotated[str | None, typer.Option("--camera", help="Only this camera.")] = None,
    cluster: Annotated[
        str | None, typer.Option("--cluster", help="Only this cluster (id or name).")
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(
            "--since", help="Only what arrived since: 2026-05-01, 2026-05-01T12:00, 90m, 12h or 7d."
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="Only the latest so many.")
    ] = None,
) -> int:
    """List the frames in order of arrival, all of them unless told otherwise."""
    states, folder = split_states(state or [])
    after = None if since is None else parse_since(since, time.time())
    with Reader(folder or context.state_dir) as reader:
        require_camera(reader, camera)
        number = None if cluster is None else resolve_cluster(reader, cluster)
        found = frames(
            reader, states=states, camera=camera, cluster=number, since=after, limit=limit
        )
        context.output.listing(FRAME_COLUMNS, found, empty="no such frames")
    return 0


@command
def show_frame(context: Context, frame: FrameArgument) -> int:
    """Everything that is known of one frame."""
    with Reader(context.state_dir) as reader:
        facts = _details(reader, resolve_frame(reader, frame))
    output = context.output
    if output.as_json:
        output.json(facts)
    else:
        output.facts({key: value for key, value in facts.items() if value is not None})
    return 0


def _details(reader: Reader, number: int) -> dict[str, Any]:
    row = frame_row(reader, number)
    runs = reader.rows(
        "SELECT DISTINCT run_id FROM plan_entries WHERE frame_id = ? ORDER BY run_id", (number,)
    )
    root = bytes(row["camera_root"]).rstrip(b"/")
    return {
        **frame_object(row),
        **path_fields(root + b"/" + bytes(row["path"]), "file"),
        "format": row["format"],
        "width": row["width"],
        "height": row["height"],
        "bytes": row["size"],
        "recorded_at": iso_time(row["recorded_at"]),
        "latency_ms": row["latency_ms"],
        "membership": row["membership"],
        "nearest_frame": format_id(FRAME, row["nearest_frame_id"]),
        "runs": [f"r{run['run_id']}" for run in runs],
    }


@command
def why(
    context: Context,
    frame: FrameArgument,
    picture: Annotated[
        Path | None,
        typer.Option(
            "--picture",
            metavar="OUT.png",
            help="Also draw it: the frame, what it was compared with, and where it changed.",
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace the picture if it is there already.")
    ] = False,
) -> int:
    """Why a frame is in its state, in words and numbers, and as a picture if you like."""
    with Reader(context.state_dir) as reader:
        row = frame_row(reader, resolve_frame(reader, frame))
        keeper = None if row["duplicate_of"] is None else frame_row(reader, row["duplicate_of"])
        gap = gap_reason(reader, row["id"])
    facts = {
        **frame_object(row),
        "nearest_frame": format_id(FRAME, row["nearest_frame_id"]),
        "alpha": row["alpha"],
        "scene_score": row["scene_score"],
        "place_score": row["place_score"],
        "novel_tile": json.loads(row["novel_tile"] or "null"),
        "why": explain(row, keeper, gap),
    }
    if picture is not None:
        from cli.why_picture import write_picture

        facts |= write_picture(context, row["id"], picture, force=force)
    output = context.output
    if output.as_json:
        output.json(facts)
        return 0
    output.lines(printable(line) for line in facts["why"])
    if picture is not None:
        output.note(f"drawn in {printable(str(picture))}, against {facts['compared_with']}")
    return 0
