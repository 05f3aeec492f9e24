"""`prune`, `restore`: what is redundant goes to the trash, later from it, and comes back."""

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.asking import ask
from cli.context import Context, command, load_settings_of
from cli.output import Column, Output
from cli.review import NoWaitOption, YesOption, dry_run
from cli.screen import counted, human_bytes
from storage.errors import ConflictError
from storage.listing import frame_row
from storage.names import FRAME, format_id, path_fields
from storage.reading import Reader
from storage.resolving import resolve_id

if TYPE_CHECKING:
    from daemon.settings import PruneSettings

COLUMNS = (
    Column("ACTION", "action"),
    Column("FRAME", "frame"),
    Column("KEEPER", "keeper"),
    Column("BYTES", "bytes", right=True),
    Column("PATH", "path"),
    Column("REASON", "reason"),
)


def register(app: typer.Typer) -> None:
    """Add the commands of this module to the app."""
    panel = "Maintain"
    app.command("prune", rich_help_panel=panel, epilog="Example: stillwatch prune")(prune)
    app.command("restore", rich_help_panel=panel, epilog="Example: stillwatch restore f12 --yes")(
        restore
    )


@command
def prune(
    context: Context,
    yes: YesOption = False,
    now: Annotated[
        bool,
        typer.Option(
            "--now",
            help="Only to the trash, everything redundant whatever its age; delete nothing."
            " Works while pruning is switched off, too.",
        ),
    ] = False,
    no_wait: NoWaitOption = False,
) -> int:
    """Free room by redundancy: old duplicates to the trash, older ones from it (needs --yes)."""
    if not yes:
        return _dry_run(context, at_once=now)
    answer = ask(context, "prune", {"now": now}, wait=not no_wait)
    output, result = context.output, answer.result
    for words in result.get("notes", ()):
        output.note(words)
    if output.as_json:
        output.json(result)
    else:
        _print_result(output, result)
    for run in result.get("trash_runs", ()):
        output.note(f"`stillwatch undo {run} --yes` takes {run} out of the trash again.")
    return answer.exit_code


def _print_result(output: Output, result: dict[str, Any]) -> None:
    hidden = ("notes", "entries")
    output.facts({key: value for key, value in result.items() if key not in hidden})
    if result.get("entries"):
        output.listing((Column("FRAME", "frame"), Column("REASON", "reason")), result["entries"])


def _dry_run(context: Context, *, at_once: bool) -> int:
    """Say what would go, how much room that is, and why not more."""
    # SQLAlchemy and the filing room are needed here only
    from daemon.filing.prune_plan import PrunePlan, entry_of, plan_prune
    from storage.engine import Database

    Reader(context.state_dir).close()
    settings = load_settings_of(context)
    moment = time.time()
    database = Database(context.state_dir, read_only=True)
    try:
        plan: PrunePlan = plan_prune(
            database, settings.prune, moment, explicit=True, at_once=at_once
        )
    finally:
        database.close()
    entries = [
        {
            "action": action,
            "frame": format_id(FRAME, frame.id),
            "keeper": format_id(FRAME, frame.keeper_id),
            "bytes": frame.size,
            **path_fields(frame.path),
            "reason": entry_of(frame, action, moment).reason,
        }
        for action, frames in (("trash", plan.to_trash), ("delete", plan.to_delete))
        for frame in frames
    ]
    facts = {
        "dry_run": True,
        "enabled": settings.prune.enabled,
        "to_trash": len(plan.to_trash),
        "bytes_to_trash": sum(frame.size for frame in plan.to_trash),
        "to_delete": len(plan.to_delete),
        "bytes_to_free": sum(frame.size for frame in plan.to_delete),
        "too_young": plan.too_young,
        "missing_bytes": plan.missing_bytes,
        "notes": plan.notes,
    }
    _print_dry_run(context.output, facts, entries, settings.prune)
    return 0


def _print_dry_run(
    output: Output, facts: dict[str, Any], entries: list[dict[str, Any]], settings: "PruneSettings"
) -> None:
    if output.as_json:
        output.json(facts | {"entries": entries})
    else:
        output.listing(COLUMNS, entries)
    for words in facts["notes"]:
        output.note(words)
    output.note(
        f"Dry run: {counted(facts['to_trash'], 'file')} to the trash"
        f" ({human_bytes(facts['bytes_to_trash'])}), {counted(facts['to_delete'], 'file')} deleted"
        f" ({human_bytes(facts['bytes_to_free'])}; each only if its keeper's file is unchanged and"
        " the change test of both passes once more). Nothing was changed."
    )
    if facts["too_young"]:
        output.note(
            f"{counted(facts['too_young'], 'redundant frame')} would stay, not yet"
            f" {settings.trash_after_days:g} days old (`trash_after_days`)."
        )
    if not settings.enabled:
        output.note(
            "Pruning is switched off. `enabled = true` under [prune] in the settings switches it"
            " on; `stillwatch prune --now --yes` moves to the trash this once."
        )


@command
def restore(
    context: Context,
    frame: Annotated[str, typer.Argument(metavar="FRAME", help="Frame id or unique beginning.")],
    yes: YesOption = False,
    no_wait: NoWaitOption = False,
) -> int:
    """Bring a frame back from the trash to its place and keep it (a dry run without --yes)."""
    with Reader(context.state_dir) as reader:
        number = resolve_id(reader, FRAME, frame)
        row = frame_row(reader, number)
    if row["state"] != "trashed":
        raise ConflictError(
            f"f{number} is not in the trash but {row['state'].replace('_', ' ')}.",
            hint="`stillwatch frames --state trashed` lists what is.",
        )
    if not yes:
        facts = {"frame": format_id(FRAME, number), **path_fields(row["path"])}
        return dry_run(context.output, facts)
    answer = ask(context, "restore", {"frame": number}, wait=not no_wait)
    if answer.result.get("beside"):
        context.output.note("Its old place is taken; it lies beside it.")
    if context.output.as_json:
        context.output.json(answer.result)
    else:
        context.output.facts({k: v for k, v in answer.result.items() if k != "beside"})
    return answer.exit_code
