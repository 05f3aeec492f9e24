"""`report`: how much smaller the pictures became, as text, JSON or a picture."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.context import Context, command
from cli.filters import parse_since
from cli.output import Column, Output, printable
from cli.screen import human_bytes
from storage.errors import FolderError, UsageError
from storage.reading import Reader
from storage.reduction import reduction

if TYPE_CHECKING:
    from cli.reduction_plot import StackedBar

COLUMNS = (
    Column("CAMERA", "camera"),
    Column("DAY", lambda row: row.get("day", "all")),
    Column("FRAMES", lambda row: f"{row['frames_before']:,}", right=True),
    Column("KEPT", lambda row: f"{row['frames_after']:,}", right=True),
    Column("REDUNDANT", lambda row: f"{row['frames_redundant']:,}", right=True),
    Column("FREED", lambda row: f"{row['frames_freed']:,}", right=True),
    Column("BEFORE", lambda row: human_bytes(row["bytes_before"]), right=True),
    Column("AFTER", lambda row: human_bytes(row["bytes_after"]), right=True),
    Column("FREED", lambda row: human_bytes(row["bytes_freed"]), right=True),
)


def register(app: typer.Typer) -> None:
    """Add the command of this module to the app."""
    app.command(
        "report",
        rich_help_panel="Look",
        epilog="Example: stillwatch report --since 30d --plot report.png",
    )(report)


@command
def report(
    context: Context,
    camera: Annotated[str | None, typer.Option("--camera", help="Only this camera.")] = None,
    since: Annotated[
        str | None,
        typer.Option(
            "--since", help="Only what arrived since: 2026-05-01, 2026-05-01T12:00, 90m, 12h or 7d."
        ),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option("--plot", metavar="OUT.png", help="Write a picture of it; never over a file."),
    ] = None,
) -> int:
    """Say how many pictures came and how many of them show something of their own."""
    after = None if since is None else parse_since(since, time.time())
    if plot is not None and plot.suffix.lower() != ".png":
        raise UsageError(f"{plot} does not end in .png.", hint="The picture is written as PNG.")
    with Reader(context.state_dir) as reader:
        facts = reduction(reader, camera=camera, since=after)
    if plot is not None:
        _write_plot(facts, plot)
    _print(context.output, facts)
    if plot is not None:
        context.output.note(f"wrote {plot}")
    return 0


def _print(output: Output, facts: dict[str, Any]) -> None:
    if output.as_json:
        output.json(facts)
        return
    total = facts["total"]
    output.lines(
        [
            f"{facts['headline']}: {human_bytes(total['bytes_before'])} before,"
            f" {human_bytes(total['bytes_after'])} kept,"
            f" {human_bytes(total['bytes_redundant'])} redundant on disk"
            f" ({human_bytes(total['bytes_trashed'])} in the trash),"
            f" {human_bytes(total['bytes_freed'])} freed"
        ]
    )
    output.listing(COLUMNS, [*facts["cameras"], *facts["days"]])


def _bar(label: str, row: Mapping[str, Any]) -> "StackedBar":
    from cli.reduction_plot import StackedBar

    return StackedBar(
        label=printable(label),
        kept=row["frames_after"],
        redundant=row["frames_redundant"],
        freed=row["frames_freed"],
    )


def _write_plot(facts: dict[str, Any], path: Path) -> None:
    # OpenCV is loaded only where a picture is drawn
    import cv2

    from cli.reduction_plot import reduction_plot

    total = facts["total"]
    subtitle = (
        f"{human_bytes(total['bytes_before'])} became {human_bytes(total['bytes_after'])};"
        f" {human_bytes(total['bytes_redundant'])} redundant still on disk,"
        f" {human_bytes(total['bytes_freed'])} freed"
    )
    cameras = [_bar(str(row["camera"]), row) for row in facts["cameras"]]
    days = [_bar(f"{row['camera']}, {row['day']}", row) for row in reversed(facts["days"])]
    picture = reduction_plot(facts["headline"], subtitle, cameras, days)
    data = cv2.imencode(".png", picture[:, :, ::-1])[1].tobytes()
    try:
        with path.open("xb") as file:
            file.write(data)
    except FileExistsError as exc:
        raise UsageError(
            f"{path} is there already; it was not replaced.",
            hint="Name another file.",
            path=str(path),
        ) from exc
    except OSError as exc:
        raise FolderError(f"{path} cannot be written: {exc.strerror}.", path=str(path)) from exc
