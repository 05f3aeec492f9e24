"""`recluster`, `runs`, `undo`: maintenance by hand; the daemon does it by itself, too."""

from typing import Annotated

import typer

from cli.asking import ask
from cli.context import Context, command
from cli.dedup import dry_run_entries
from cli.output import Column
from cli.review import NoWaitOption, YesOption, dry_run, print_answer
from storage.errors import ConflictError
from storage.listing import run_entries, runs
from storage.names import RUN, format_id
from storage.reading import Reader
from storage.resolving import resolve_id

RUN_COLUMNS = (
    Column("ID", "id"),
    Column("KIND", "kind"),
    Column("STATE", "state"),
    Column("CREATED", "created_at", is_time=True),
    Column("SECONDS", "seconds", right=True),
    Column("BYTES", "bytes", right=True),
    Column("COUNTS", lambda run: ", ".join(f"{k} {v}" for k, v in run["counts"].items())),
)


def register(app: typer.Typer) -> None:
    """Add the commands of this module to the app."""
    panel = "Maintain"
    app.command("recluster", rich_help_panel=panel, epilog="Example: stillwatch recluster --json")(
        recluster
    )
    app.command("runs", rich_help_panel=panel, epilog="Example: stillwatch runs --json")(list_runs)
    app.command("undo", rich_help_panel=panel, epilog="Example: stillwatch undo r7 --yes")(undo)


RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="Run id (r7) or its beginning.")]


@command
def recluster(context: Context, no_wait: NoWaitOption = False) -> int:
    """Cluster all frames anew; ids and names of clusters stay. No file is moved."""
    return print_answer(context.output, ask(context, "recluster", {}, wait=not no_wait))


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
        number = resolve_id(reader, RUN, run)
        row = reader.one("SELECT kind, state FROM runs WHERE id = ?", (number,))
        entries = [entry for entry in run_entries(reader, number) if entry["state"] == "applied"]
    if row["kind"] in ("recluster", "pool"):
        raise ConflictError(
            f"r{number} is a {row['kind']} run; it moved no file, nothing is to be taken back.",
            hint="Undo the filing run that followed it, if any: `stillwatch runs`.",
        )
    if row["kind"] == "prune":
        raise ConflictError(
            f"r{number} deleted files; that cannot be taken back.",
            hint="What is still in the trash can: `stillwatch frames --state trashed`.",
        )
    if not yes:
        if row["kind"] in ("dedup", "filing", "folders", "trash"):
            words = "Dry run of taking back"
            return dry_run_entries(context.output, number, entries, words)
        facts = {"run": format_id(RUN, number), "kind": row["kind"], "state": row["state"]}
        return dry_run(context.output, facts)
    return print_answer(context.output, ask(context, "undo", {"run": number}, wait=not no_wait))
