"""`status`, `frames`, `show`, `why`: what came, what state it is in, and the reasons."""

import json
import time
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from datetime import time as datetime_time
from pathlib import Path
from typing import Annotated, Any, Final, Self

import typer

from cli.context import Context, command
from cli.output import Column, Output, printable
from cli.screen import problems, settings_problems, status_screen
from cli.words import explain
from storage.errors import NotFoundError, UsageError
from storage.listing import frame_object, frame_row, frames
from storage.lock import holder
from storage.names import FRAME, format_id, path_fields
from storage.overview import camera_summaries, status
from storage.reading import Reader, iso_time
from storage.space_listing import gap_reason
from storage.states import STATES

WATCH_SECONDS: Final = 1.0

EXIT_DEGRADED: Final = 4
EXIT_NOT_RUNNING: Final = 5

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
    app.command("status", rich_help_panel=panel, epilog="Example: stillwatch status --check")(
        show_status
    )
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
def show_status(
    context: Context,
    watch: Annotated[
        bool, typer.Option("--watch", help="Print it again every second until Ctrl-C.")
    ] = False,
    check: Annotated[
        bool,
        typer.Option("--check", help="Exit with 0 if healthy, 4 if degraded, 5 if not running."),
    ] = False,
) -> int:
    """One screen: is it running, what came, what was found."""
    if watch and check:
        raise UsageError("--watch and --check exclude each other.")
    if watch:
        _watch_status(context)
    state = print_status(context.state_dir, context.output)
    if not check:
        return 0
    return {"running": 0, "degraded": EXIT_DEGRADED}.get(state, EXIT_NOT_RUNNING)


@dataclass(frozen=True, slots=True)
class _Look:
    """The state of everything at one moment."""

    pid: int | None
    facts: dict[str, Any]
    cameras: list[dict[str, Any]]

    @classmethod
    def at(cls, state_dir: Path) -> Self:
        pid = holder(state_dir)
        running = pid is not None
        with Reader(state_dir) as reader:
            cameras = camera_summaries(reader, running=running)
            return cls(pid, status(reader, running=running), cameras)

    def screen(self, state_dir: Path) -> list[Any]:
        return status_screen(self.facts, self.cameras, self.pid, state_dir, time.time())


def print_status(state_dir: Path, output: Output) -> str:
    """Print the status once, as an object or as a screen; returns the overall state.

    Raises:
        NoStateError: There is no database yet.
    """
    look = _Look.at(state_dir)
    if output.as_json:
        output.json(look.facts)
    elif output.is_terminal:
        output.rich(*look.screen(state_dir))
    else:
        output.facts(_flat(look.facts))
    if not output.is_terminal:
        told = problems(look.cameras) | settings_problems(look.facts)
        for name, text in told.items():
            output.note(f"{name}: {text}")
    return str(look.facts["state"])


def _flat(facts: dict[str, Any], prefix: str = "") -> dict[str, object]:
    flat: dict[str, object] = {}
    for key, value in facts.items():
        if isinstance(value, dict):
            flat.update(_flat(value, f"{prefix}{key}."))
        elif isinstance(value, list):
            for item in value:
                flat.update(_flat(item, f"{prefix}{key}.{printable(item['name'])}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _watch_status(context: Context) -> None:
    """Print again and again; ends by KeyboardInterrupt (exit code 130)."""
    output = context.output
    if not output.is_terminal:
        while True:
            print_status(context.state_dir, output)
            time.sleep(WATCH_SECONDS)
    from rich.console import Group
    from rich.live import Live

    with Live(console=output.console(), screen=True, auto_refresh=False) as live:
        while True:
            look = _Look.at(context.state_dir)
            live.update(Group(*look.screen(context.state_dir)), refresh=True)
            time.sleep(WATCH_SECONDS)


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
        if camera is not None and not reader.one("SELECT 1 FROM cameras WHERE name = ?", (camera,)):
            raise NotFoundError(
                f"There is no camera {camera}.", hint="`stillwatch status` lists them."
            )
        number = None if cluster is None else reader.resolve_cluster(cluster)
        found = frames(
            reader, states=states, camera=camera, cluster=number, since=after, limit=limit
        )
        context.output.listing(FRAME_COLUMNS, found, empty="no such frames")
    return 0


def split_states(values: list[str]) -> tuple[list[str], Path | None]:
    """Tell the frame states in `--state` values from a state folder.

    `--state` names the state folder everywhere; `frames` takes state names there too.

    Raises:
        UsageError: A value is neither.
    """
    states = [value for value in values if value in STATES]
    others = [value for value in values if value not in STATES]
    if others and "/" not in others[-1] and not Path(others[-1]).is_dir():
        raise UsageError(
            f"There is no frame state and no folder {others[-1]}.",
            hint=f"The states are {', '.join(STATES)}.",
        )
    return states, Path(others[-1]) if others else None


def parse_until(text: str, now: float) -> float:
    """The end of a date, or a time or an age (90m, 12h, 7d), as seconds since the epoch.

    Raises:
        UsageError: It is none of them.
    """
    try:
        day = date.fromisoformat(text)
    except ValueError:
        return parse_since(text, now, option="--until")
    return datetime.combine(day, datetime_time.max).timestamp()


def parse_since(text: str, now: float, option: str = "--since") -> float:
    """A date, a time or an age (90m, 12h, 7d) as seconds since the epoch.

    Raises:
        UsageError: It is none of them; `option` is named.
    """
    units = {"m": "minutes", "h": "hours", "d": "days"}
    try:
        if text[-1:] in units and text[:-1].isdigit():
            return now - timedelta(**{units[text[-1]]: int(text[:-1])}).total_seconds()
        # Without a zone it is the machine's.
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError):
        raise UsageError(
            f"{option} does not understand {text}.",
            hint="Write 2026-05-01, 2026-05-01T12:00, 90m, 12h or 7d.",
        ) from None


@command
def show_frame(context: Context, frame: FrameArgument) -> int:
    """Everything that is known of one frame."""
    with Reader(context.state_dir) as reader:
        facts = _details(reader, reader.resolve_frame(frame))
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
        row = frame_row(reader, reader.resolve_frame(frame))
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
