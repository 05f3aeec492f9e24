"""`dedup`: which frames show nothing new, what is done about it, and what the owner says to it."""

from typing import Annotated, Any

import typer

from cli import evaluate
from cli.asking import ask
from cli.context import Context, command
from cli.output import Column, Output
from cli.review import FramesArgument, NoWaitOption, YesOption, dry_run, print_answer
from cli.screen import counted, human_bytes
from storage.errors import ConflictError, NotFoundError, UsageError
from storage.listing import dedup_plan, newest_dedup_run, run_entries
from storage.names import FRAME, RUN, format_id
from storage.plan_diff import plan_diff
from storage.reading import Reader
from storage.resolving import resolve_frame, resolve_id

ENTRY_COLUMNS = (
    Column("FRAME", "frame"),
    Column("KEEPER", "keeper"),
    Column("PATH", "path"),
    Column("TARGET", "target"),
    Column("BYTES", "bytes", right=True),
    Column("STATE", "state"),
    Column("REASON", "reason"),
)
MEMBER_COLUMNS = (
    Column("KEEPER", "keeper"),
    Column("FRAME", "frame"),
    Column("DISTANCE", "distance", right=True),
    Column("CHANGE", "change_score", right=True),
    Column("PATH", "path"),
    Column("REASON", "reason"),
)

DIFF_COLUMNS = (
    Column("CHANGE", "change"),
    Column("FRAME", "frame"),
    Column("KEEPER", lambda row: "" if row["change"] == "dropped" else row["keeper"]),
    Column("BEFORE", "keeper_before"),
    Column("PATH", "path"),
    Column("REASON", "reason"),
)
FrameArgument = Annotated[
    str, typer.Argument(metavar="FRAME", help="Frame id, unique beginning, or path of a file.")
]
RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="Run id (r7) or its beginning.")]


def register(app: typer.Typer) -> None:
    """Add the group of commands to the app."""
    group = typer.Typer(no_args_is_help=False)
    for name, function, example in (
        ("plan", plan, "plan --new"),
        ("diff", diff, "diff r7 r9"),
        ("apply", apply, "apply r7 --yes"),
        ("discard", discard, "discard r7 --yes"),
        ("apart", apart, "apart f12 f3 --yes"),
        ("keep", keep, "keep f12 f13 --yes"),
        ("keeper", keeper, "keeper f12 --yes"),
    ):
        group.command(name, epilog=f"Example: stillwatch dedup {example}")(function)
    evaluate.register(group)
    app.add_typer(
        group,
        name="dedup",
        rich_help_panel="Maintain",
        help="Find near-duplicates, and set them aside.",
        epilog="Example: stillwatch dedup plan --new",
    )


@command
def plan(
    context: Context,
    new: Annotated[bool, typer.Option("--new", help="Compute a new plan first.")] = False,
    recompute: Annotated[
        bool,
        typer.Option(
            "--recompute",
            help="Judge every frame again from its file, then plan; goes on where it was stopped.",
        ),
    ] = False,
    no_wait: NoWaitOption = False,
) -> int:
    """Show the newest plan: which frames show nothing new, and which keeper stands for them."""
    output = context.output
    code = 0
    if new or recompute:
        answer = ask(context, "dedup_plan", {"recompute": recompute}, wait=not no_wait)
        code = answer.exit_code
        if no_wait and "request" in answer.result:
            return print_answer(output, answer)
    with Reader(context.state_dir) as reader:
        _print_plan(output, dedup_plan(reader, newest_dedup_run(reader)))
    return code


def _print_plan(output: Output, plan: dict[str, Any]) -> None:
    if output.as_json:
        output.json(plan)
        return
    members = (
        {"keeper": group["keeper"], **member}
        for group in plan["groups"]
        for member in group["members"]
    )
    output.listing(MEMBER_COLUMNS, members)
    if plan["run"] is None:
        output.note("no plan yet; `stillwatch dedup plan --new` makes one")
        return
    output.note(
        f"{plan['run']}: {counted(plan['frames_redundant'], 'redundant frame')},"
        f" {human_bytes(plan['bytes_redundant'])}, in {counted(len(plan['groups']), 'group')}"
    )
    if plan["groups"]:
        output.note(
            "`stillwatch why FRAME --picture OUT.png` shows what a verdict rests on;"
            " `stillwatch dedup apply --yes` sets the frames aside, undoable."
        )


@command
def apply(
    context: Context,
    run: Annotated[
        str | None, typer.Argument(metavar="[RUN]", help="Run id of a plan; default: the newest.")
    ] = None,
    yes: YesOption = False,
    no_wait: NoWaitOption = False,
) -> int:
    """Move the redundant frames of a plan to their keeper's folder (a dry run without --yes)."""
    with Reader(context.state_dir) as reader:
        number = _dedup_run(reader, run)
        entries = run_entries(reader, number)
    todo = [entry for entry in entries if entry["state"] != "applied"]  # as apply does
    if not yes:
        return dry_run_entries(context.output, number, todo)
    answer = ask(context, "dedup_apply", {"run": number}, wait=not no_wait)
    return print_answer(context.output, answer, undoable=True)


def _dedup_run(reader: Reader, text: str | None) -> int:
    number = newest_dedup_run(reader) if text is None else resolve_id(reader, RUN, text)
    if number is None:
        raise NotFoundError(
            "There is no dedup plan yet.", hint="`stillwatch dedup plan --new` makes one."
        )
    kind = reader.one("SELECT kind FROM runs WHERE id = ?", (number,))["kind"]
    if kind != "dedup":
        raise UsageError(
            f"r{number} is a {kind} run, not a dedup plan.", hint="`stillwatch runs` lists them."
        )
    return number


def dry_run_entries(
    output: Output, number: int, entries: list[dict[str, Any]], what: str = "Dry run of"
) -> int:
    """List what a run would do to files, and say that nothing was done; the exit code is 0."""
    size = sum(entry["bytes"] or 0 for entry in entries)
    if output.as_json:
        facts = {"dry_run": True, "run": format_id(RUN, number), "frames": len(entries)}
        output.json({**facts, "bytes": size, "entries": entries})
    else:
        known = any(entry["target"] is not None for entry in entries)
        shown = [column for column in ENTRY_COLUMNS if known or column.value != "target"]
        output.listing(shown, entries)
    output.note(
        f"{what} r{number}: {counted(len(entries), 'file')}, {human_bytes(size)}."
        " Nothing was changed. Add --yes to do it."
    )
    return 0


@command
def discard(
    context: Context, run: RunArgument, yes: YesOption = False, no_wait: NoWaitOption = False
) -> int:
    """Drop the verdicts of a plan that is not applied (a dry run without --yes)."""
    with Reader(context.state_dir) as reader:
        number = _dedup_run(reader, run)
        state = reader.one("SELECT state FROM runs WHERE id = ?", (number,))["state"]
        entries = run_entries(reader, number)
    if any(entry["state"] == "applied" for entry in entries):
        raise ConflictError(
            f"r{number} is {state}: its files were moved.",
            hint=f"`stillwatch undo r{number} --yes` first.",
        )
    if not yes:
        verdicts = {"run": format_id(RUN, number), "state": state, "verdicts": len(entries)}
        return dry_run(context.output, verdicts)
    return print_answer(
        context.output, ask(context, "dedup_discard", {"run": number}, wait=not no_wait)
    )


@command
def diff(
    context: Context,
    first: Annotated[str, typer.Argument(metavar="RUN", help="The earlier plan.")],
    second: Annotated[str, typer.Argument(metavar="RUN", help="The later plan.")],
) -> int:
    """Compare two plans: which frames came in, which dropped out, which have another keeper."""
    output = context.output
    with Reader(context.state_dir) as reader:
        found = plan_diff(reader, _dedup_run(reader, first), _dedup_run(reader, second))
    if output.as_json:
        output.json(found)
        return 0
    rows = (
        {"change": word.replace("_", " "), **entry}
        for word in ("added", "dropped", "other_keeper")
        for entry in found[word]
    )
    output.listing(DIFF_COLUMNS, rows)
    output.note(
        f"{found['second']} against {found['first']}: {len(found['added'])} added,"
        f" {len(found['dropped'])} dropped, {len(found['other_keeper'])} with another keeper"
    )
    return 0


@command
def keep(
    context: Context, frames: FramesArgument, yes: YesOption = False, no_wait: NoWaitOption = False
) -> int:
    """Pin frames: they stay, whatever the change test says (a dry run without --yes)."""
    with Reader(context.state_dir) as reader:
        numbers = list(dict.fromkeys(resolve_frame(reader, text) for text in frames))
    if not yes:
        ids = [format_id(FRAME, number) for number in numbers]
        return dry_run(context.output, {"decision": "keep", "frames": ids})
    answer = ask(context, "dedup_keep", {"frames": numbers}, wait=not no_wait)
    return print_answer(context.output, answer, undoable=True)


@command
def apart(
    context: Context,
    frame: FrameArgument,
    keeper: Annotated[
        str, typer.Argument(metavar="KEEPER", help="The frame that it is no duplicate of.")
    ],
    yes: YesOption = False,
    no_wait: NoWaitOption = False,
) -> int:
    """Say that two frames are no duplicates of each other (a dry run without --yes)."""
    with Reader(context.state_dir) as reader:
        pair = {"frame": resolve_frame(reader, frame), "keeper": resolve_frame(reader, keeper)}
    if not yes:
        ids = {key: format_id(FRAME, number) for key, number in pair.items()}
        return dry_run(context.output, {"decision": "apart", **ids})
    return print_answer(
        context.output, ask(context, "dedup_apart", pair, wait=not no_wait), undoable=True
    )


@command
def keeper(
    context: Context, frame: FrameArgument, yes: YesOption = False, no_wait: NoWaitOption = False
) -> int:
    """Make a frame the keeper of its group (a dry run without --yes).

    Frames of the group that show no change from it follow it, the others are kept.
    """
    with Reader(context.state_dir) as reader:
        number = resolve_frame(reader, frame)
    if not yes:
        return dry_run(context.output, {"decision": "keeper", "frame": format_id(FRAME, number)})
    answer = ask(context, "dedup_keeper", {"frame": number}, wait=not no_wait)
    return print_answer(context.output, answer, undoable=True)
