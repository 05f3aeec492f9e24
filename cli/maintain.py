"""`recluster`, `dedup`, `runs`, `undo`: maintenance by hand; the daemon does it by itself, too."""

from typing import Annotated, Any

import typer

from cli.asking import ask
from cli.context import Context, command
from cli.output import Column, Output
from cli.review import NoWaitOption, YesOption, dry_run, print_answer
from cli.screen import counted, human_bytes
from storage.errors import ConflictError, NotFoundError, UsageError
from storage.listing import dedup_plan, newest_dedup_run, run_entries, runs
from storage.names import RUN, format_id
from storage.reading import Reader

RUN_COLUMNS = (
    Column("ID", "id"),
    Column("KIND", "kind"),
    Column("STATE", "state"),
    Column("CREATED", "created_at", is_time=True),
    Column("SECONDS", "seconds", right=True),
    Column("BYTES", "bytes", right=True),
    Column("COUNTS", lambda run: ", ".join(f"{k} {v}" for k, v in run["counts"].items())),
)
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


def register(app: typer.Typer) -> None:
    """Add the commands of this module to the app."""
    panel = "Maintain"
    app.command("recluster", rich_help_panel=panel, epilog="Example: stillwatch recluster --json")(
        recluster
    )
    group = typer.Typer(no_args_is_help=False)
    group.command("plan", epilog="Example: stillwatch dedup plan --new")(plan)
    group.command("apply", epilog="Example: stillwatch dedup apply r7 --yes")(apply)
    group.command("discard", epilog="Example: stillwatch dedup discard r7 --yes")(discard)
    app.add_typer(
        group,
        name="dedup",
        rich_help_panel=panel,
        help="Find near-duplicates, and set them aside.",
        epilog="Example: stillwatch dedup plan --new",
    )
    app.command("runs", rich_help_panel=panel, epilog="Example: stillwatch runs --json")(list_runs)
    app.command("undo", rich_help_panel=panel, epilog="Example: stillwatch undo r7 --yes")(undo)


RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="Run id (r7) or its beginning.")]


@command
def recluster(context: Context, no_wait: NoWaitOption = False) -> int:
    """Cluster all frames anew; ids and names of clusters stay. No file is moved."""
    return print_answer(context.output, ask(context, "recluster", {}, wait=not no_wait))


@command
def plan(
    context: Context,
    new: Annotated[bool, typer.Option("--new", help="Compute a new plan first.")] = False,
    no_wait: NoWaitOption = False,
) -> int:
    """Show the newest plan: which frames show nothing new, and which keeper stands for them."""
    output = context.output
    code = 0
    if new:
        answer = ask(context, "dedup_plan", {}, wait=not no_wait)
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
    todo = [entry for entry in entries if entry["state"] == "planned"]
    if not yes:
        return _dry_run_entries(context.output, number, todo)
    answer = ask(context, "dedup_apply", {"run": number}, wait=not no_wait)
    return print_answer(context.output, answer, undoable=True)


def _dedup_run(reader: Reader, text: str | None) -> int:
    number = newest_dedup_run(reader) if text is None else reader.resolve(RUN, text)
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


def _dry_run_entries(output: Output, number: int, entries: list[dict[str, Any]]) -> int:
    size = sum(entry["bytes"] or 0 for entry in entries)
    if output.as_json:
        facts = {"dry_run": True, "run": format_id(RUN, number), "frames": len(entries)}
        output.json({**facts, "bytes": size, "entries": entries})
    else:
        output.listing(ENTRY_COLUMNS, entries)
    output.note(
        f"Dry run of r{number}: {counted(len(entries), 'file')}, {human_bytes(size)}."
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
def list_runs(context: Context) -> int:
    """List what was done and can be undone, oldest first."""
    with Reader(context.state_dir) as reader:
        context.output.listing(RUN_COLUMNS, runs(reader), empty="no run yet")
    return 0


@command
def undo(
    context: Context, run: RunArgument, yes: YesOption = False, no_wait: NoWaitOption = False
) -> int:
    """Take a run back: every file under its old name, or a decision undone (needs --yes)."""
    with Reader(context.state_dir) as reader:
        number = reader.resolve(RUN, run)
        row = reader.one("SELECT kind, state FROM runs WHERE id = ?", (number,))
        entries = [entry for entry in run_entries(reader, number) if entry["state"] == "applied"]
    if row["kind"] in ("recluster", "pool"):
        raise ConflictError(
            f"r{number} is a {row['kind']} run; it moved no file, nothing is to be taken back.",
            hint="Undo the filing run that followed it, if any: `stillwatch runs`.",
        )
    if not yes:
        if row["kind"] in ("dedup", "filing"):
            return _dry_run_entries(context.output, number, entries)
        facts = {"run": format_id(RUN, number), "kind": row["kind"], "state": row["state"]}
        return dry_run(context.output, facts)
    return print_answer(context.output, ask(context, "undo", {"run": number}, wait=not no_wait))
