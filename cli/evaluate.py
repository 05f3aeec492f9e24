"""`dedup evaluate`: how well the change test does on the owner's own cameras."""

import csv
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.asking import ask
from cli.context import Context, command
from cli.output import Column, Output, printable
from cli.review import NoWaitOption, print_answer
from storage.errors import NotFoundError, UsageError
from storage.names import FRAME, display_path, format_id
from storage.reading import Reader
from storage.verdicts import verdicts

if TYPE_CHECKING:
    from daemon.dedup.evaluation import LabelledFrame, LabelledScore

PAIR_COLUMNS = (
    Column("CAMERA", "camera"),
    Column("PAIRS", "kind"),
    Column("MADE", "pairs", right=True),
    Column("CALLED A REPEAT", "merged", right=True),
    Column("SHARE", lambda row: _percent(row["merged"], row["pairs"]), right=True),
)
CURVE_COLUMNS = (
    Column("CAMERA", "camera"),
    Column(
        "QUIET FOUND", lambda row: _share(row["quiet_found"]) or "as much as is safe", right=True
    ),
    Column("PREDICTED", lambda row: _share(row["predicted"]), right=True),
    Column("LIMIT", "limit", right=True),
    Column("FRAMES REMOVED", "frames_removed", right=True),
    Column("SHARE", lambda row: _share(row["share_removed"]), right=True),
    Column("THINGS LOST", lambda row: _lost(row), right=True),
)

_NOTHING = "no camera to test: a moving one and an archive have no change test"
_CHOICE = (
    "Each line of the second table is a choice: `quiet_found = 0.8` under [dedup] in the settings"
    " asks for the line of 80 %; without it as much is found as is safe."
)


def register(group: typer.Typer) -> None:
    """Add the command to the group `dedup`."""
    group.command(
        "evaluate",
        epilog="Examples: stillwatch dedup evaluate --camera yard"
        " · stillwatch dedup evaluate --labels labels.csv",
    )(evaluate)


@command
def evaluate(
    context: Context,
    labels: Annotated[
        Path | None,
        typer.Option(
            "--labels",
            metavar="CSV",
            help="Compare the stored verdicts with labels: a table with the columns path (below"
            " the camera's folder) and label. `unclear` and empty labels are left out.",
        ),
    ] = None,
    quiet: Annotated[
        str,
        typer.Option("--quiet", metavar="LABEL", help="Label of frames in which nothing happens."),
    ] = "empty",
    camera: Annotated[str | None, typer.Option("--camera", help="Only this camera.")] = None,
    pairs: Annotated[
        int,
        typer.Option(
            "--pairs", min=5, max=400, help="Without labels: frames to try things on, a camera."
        ),
    ] = 40,
    no_wait: NoWaitOption = False,
) -> int:
    """How much of the quiet is found, and whether anything new is lost, on your own cameras.

    Without labels some of each camera's own pictures are taken once more, with and without a
    thing put in, and tested; no file is changed. Then the curve: what each choice of
    `dedup.quiet_found` would remove.
    """
    output = context.output
    if labels is not None:
        return _with_labels(context, labels, quiet, camera)
    answer = ask(context, "dedup_evaluate", {"camera": camera, "pairs": pairs}, wait=not no_wait)
    if output.as_json or "request" in answer.result:
        return print_answer(output, answer)
    found = answer.result["cameras"]
    output.listing(PAIR_COLUMNS, _rows(found, "pairs"), empty=_NOTHING)
    curve = _rows(found, "curve")
    if curve:
        output.lines([""])
        output.listing(CURVE_COLUMNS, curve)
    for one in found:
        output.note(f"{printable(one['camera'])}: {one['words']}")
    if any(row["quiet_found"] for row in curve):
        output.note(_CHOICE)
    return answer.exit_code


def _rows(cameras: list[dict[str, Any]], key: str) -> list[dict[str, Any]]:
    return [{"camera": one["camera"], **row} for one in cameras for row in one[key]]


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else ""


def _share(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.0f} %"


def _lost(row: Mapping[str, Any]) -> str:
    return "" if row["things"] is None else f"{row['things_merged']} of {row['things']}"


def _with_labels(context: Context, table: Path, quiet: str, camera: str | None) -> int:
    from daemon.dedup.evaluation import UNCLEAR, score_labels

    labels = _read_labels(table)
    with Reader(context.state_dir) as reader:
        if camera is not None and not reader.one("SELECT 1 FROM cameras WHERE name = ?", (camera,)):
            raise NotFoundError(
                f"There is no camera {camera}.", hint="`stillwatch status` lists them."
            )
        frames, matched = _labelled(reader, camera, labels)
    if not matched:
        raise UsageError(
            f"{table} names no frame of {camera or 'any camera'}.",
            hint="The column path counts from the camera's folder, as `stillwatch frames` shows.",
            path=str(table),
        )
    known = Counter(one.label for one in frames if one.label not in UNCLEAR and one.label)
    if quiet not in known:
        raise UsageError(
            f"No frame has the label {quiet}.",
            hint=f"Say which one is quiet with --quiet; there are {', '.join(sorted(known))}.",
            path=str(table),
        )
    _print_score(context.output, score_labels(frames, quiet), len(labels) - matched)
    return 0


def _read_labels(table: Path) -> dict[str, str]:
    """Path -> label.

    Raises:
        UsageError: It cannot be read, is no CSV text, or lacks a column.
    """
    try:
        with table.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            if not {"path", "label"} <= set(reader.fieldnames or ()):
                raise UsageError(
                    f"{table} lacks the columns path and label.",
                    hint="Its first line must name them: path,label",
                    path=str(table),
                )
            return {row["path"]: (row["label"] or "").strip() for row in reader if row["path"]}
    except OSError as exc:
        raise UsageError(f"{table} cannot be read: {exc.strerror}.", path=str(table)) from exc
    except (UnicodeDecodeError, csv.Error) as exc:
        raise UsageError(
            f"{table} is no table of comma-separated text: {exc}.", path=str(table)
        ) from exc


def _labelled(
    reader: Reader, camera: str | None, labels: dict[str, str]
) -> tuple[list["LabelledFrame"], int]:
    """The frames in capture order with their labels, and how many of the table were found."""
    from daemon.dedup.evaluation import LabelledFrame

    found: set[str] = set()
    frames = []
    for row in verdicts(reader, camera):
        names = [display_path(bytes(row[key])) for key in ("original_path", "path")]
        names.append(f"{display_path(bytes(row['root']).rstrip(b'/'))}/{names[0]}")
        name = next((one for one in names if one in labels), None)
        if name is not None:
            found.add(name)
        frames.append(
            LabelledFrame(
                frame_id=int(row["id"]),
                camera_id=int(row["camera_id"]),
                label=None if name is None else labels[name],
                keeper_id=row["duplicate_of"],
            )
        )
    return frames, len(found)


def _print_score(output: Output, score: "LabelledScore", unknown: int) -> None:
    facts: dict[str, object] = {
        "labelled_frames": score.frames,
        "quiet_frames": score.quiet,
        "quiet_found": score.quiet_found,
        "quiet_found_share": round(score.quiet_found / score.quiet, 4) if score.quiet else None,
        "changes": score.changes,
        "changes_merged": len(score.merged),
        "events": score.events,
        "events_lost": len(score.events_lost),
        "first_frames_lost": len(score.starts_lost),
        "cross_camera_errors": len(score.cross_camera),
        "not_among_the_frames": unknown,
    }
    wrong = [
        {"frame": format_id(FRAME, frame), "keeper": format_id(FRAME, keeper)}
        for frame, keeper in [*score.merged, *score.cross_camera]
    ]
    if output.as_json:
        output.json({**facts, "wrong": wrong})
        return
    output.facts(facts)
    for one in wrong:
        output.note(f"{one['frame']} is called a repeat of {one['keeper']}")
    share = _percent(score.quiet_found, score.quiet)
    output.note(
        f"{share} of the {score.quiet} quiet frames are found;"
        f" {len(score.merged)} frames are merged with one of another label,"
        f" {len(score.events_lost)} of {score.events} events are lost."
    )
