"""`novel`: look at what was found, and say what is right."""

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from cli.asking import Answer, ask
from cli.context import Context, command
from cli.frames import FRAME_COLUMNS
from cli.output import Column, Output
from storage.errors import ConflictError
from storage.listing import frame_row, novelties
from storage.names import FRAME, format_id
from storage.reading import Reader
from storage.resolving import resolve_frame

NOVEL_COLUMNS = (
    *FRAME_COLUMNS[:1],
    Column("WHAT", "novelty"),
    Column("MORE", lambda frame: f"+{len(frame['more'])}" if frame["more"] else "", right=True),
    *FRAME_COLUMNS[2:7],
    FRAME_COLUMNS[-1],
)

YesOption = Annotated[
    bool, typer.Option("--yes", help="Do it; without this the command only says what it would do.")
]
NoWaitOption = Annotated[
    bool,
    typer.Option("--no-wait", help="Do not wait for the daemon; print the id of the request."),
]
FramesArgument = Annotated[
    list[str],
    typer.Argument(metavar="FRAME...", help="Frame ids, unique beginnings, or paths of files."),
]


def register(app: typer.Typer) -> None:
    """Add the commands of this module to the app."""
    panel = "Review"
    group = typer.Typer(invoke_without_command=True)
    group.callback(epilog="Example: stillwatch novel dismiss f12 f13 --yes")(list_novel)
    group.command("accept", epilog="Example: stillwatch novel accept f12 --yes")(accept)
    group.command("dismiss", epilog="Example: stillwatch novel dismiss f12 --yes")(dismiss)
    app.add_typer(group, name="novel", rich_help_panel=panel)


@command
def list_novel(context: Context) -> int:
    """List what is new and not yet explained, whole scenes first."""
    with Reader(context.state_dir) as reader:
        context.output.listing(NOVEL_COLUMNS, novelties(reader), empty="nothing novel")
    return 0


@command
def accept(
    context: Context, frames: FramesArgument, yes: YesOption = False, no_wait: NoWaitOption = False
) -> int:
    """Say that frames are right and to be expected from now on (a dry run without --yes)."""
    return _decide(context, "novel_accept", frames, yes=yes, wait=not no_wait)


@command
def dismiss(
    context: Context, frames: FramesArgument, yes: YesOption = False, no_wait: NoWaitOption = False
) -> int:
    """Say that frames are a false alarm of their nearest cluster (a dry run without --yes)."""
    return _decide(context, "novel_dismiss", frames, yes=yes, wait=not no_wait)


def _decide(context: Context, kind: str, texts: list[str], *, yes: bool, wait: bool) -> int:
    with Reader(context.state_dir) as reader:
        numbers = list(dict.fromkeys(resolve_frame(reader, text) for text in texts))
        for number in numbers:
            state = frame_row(reader, number)["state"]
            if state != "novel":
                raise ConflictError(
                    f"f{number} is not novel but {state.replace('_', ' ')}.",
                    hint="`stillwatch novel` lists the novel frames.",
                )
    if not yes:
        ids = [format_id(FRAME, number) for number in numbers]
        return dry_run(context.output, {"decision": kind.removeprefix("novel_"), "frames": ids})
    answer = ask(context, kind, {"frames": numbers}, wait=wait)
    return print_answer(context.output, answer, undoable=True)


def dry_run(output: Output, plan: dict[str, Any]) -> int:
    """Print what would be done, and that nothing was; the exit code is 0."""
    if output.as_json:
        output.json({"dry_run": True, **plan})
    else:
        output.facts(plan)
    output.note("Dry run: nothing was changed. Add --yes to do it.")
    return 0


def print_answer(output: Output, answer: Answer, *, undoable: bool = False) -> int:
    """Print a job's result, and how to take it back if that can be; returns its exit code."""
    result = answer.result
    if output.as_json:
        output.json(result)
    else:
        _print_result(output, result)
    if undoable and "run" in result:
        output.note(f"`stillwatch undo {result['run']} --yes` takes it back.")
    return answer.exit_code


def _print_result(output: Output, result: Mapping[str, Any]) -> None:
    entries = result.get("entries")
    output.facts({key: value for key, value in result.items() if key != "entries"})
    if isinstance(entries, list) and entries and isinstance(entries[0], dict):
        output.listing([Column(key.upper(), key) for key in entries[0]], entries)
