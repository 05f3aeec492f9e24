"""`backup`, `restore-database`: copies of the database, and the way back from a damaged one."""

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.context import Context, command, load_settings_of
from cli.output import Column, Output
from cli.review import YesOption, dry_run
from storage.database_file import DATABASE_NAME
from storage.errors import UsageError
from storage.reading import iso_time, no_state

BACKUP_COLUMNS = (
    Column("AT", "at", is_time=True),
    Column("BYTES", "bytes", right=True),
    Column("WHY", "reason"),
    Column("FILE", "file"),
)
ASKED = "asked"


def register(app: typer.Typer, panel: str) -> None:
    """Add the commands of this module to the app."""
    app.command("backup", rich_help_panel=panel, epilog="Example: stillwatch backup --list")(backup)
    app.command(
        "restore-database",
        rich_help_panel=panel,
        epilog="Example: stillwatch restore-database --yes",
    )(restore_database)


@command
def backup(
    context: Context,
    to: Annotated[
        Path | None,
        typer.Option(
            "--to", metavar="FILE", help="Write it there instead; never over another file."
        ),
    ] = None,
    show_list: Annotated[
        bool, typer.Option("--list", help="Only list the backups, oldest first.")
    ] = False,
) -> int:
    """Copy the database, checked, beside a working daemon or without one."""
    from storage.backup import backup_folder, make_backup, rotate, write_backup

    settings, output = load_settings_of(context), context.output
    if show_list:
        return _list(context)
    _require_database(context.state_dir)
    now = time.time()
    if to is not None:
        write_backup(context.state_dir, to)
        return _tell(output, {"file": str(to), "bytes": to.stat().st_size, "removed": 0})
    folder = backup_folder(context.state_dir, settings.backup.folder)
    made = make_backup(context.state_dir, folder, ASKED, now)
    removed = rotate(folder, settings.backup.keep)
    return _tell(output, {"file": str(made.path), "bytes": made.size, "removed": len(removed)})


@command
def restore_database(
    context: Context,
    file: Annotated[
        Path | None,
        typer.Argument(metavar="[BACKUP]", help="Default: the newest backup that is sound."),
    ] = None,
    from_folder: Annotated[
        list[Path] | None,
        typer.Option(
            "--from-folder",
            metavar="FOLDER",
            help="Without any backup: a new database with a row for every picture below"
            " FOLDER/stillwatch/. May be given several times; a sound database is kept.",
        ),
    ] = None,
    yes: YesOption = False,
) -> int:
    """Put a backup in the database's place; rows follow the files, no picture is moved."""
    from daemon.restoring import adopt_folders, choose_backup, condition, restore

    if file is not None and from_folder:
        raise UsageError("A backup and --from-folder exclude each other.", hint="Name one of them.")
    settings, output = load_settings_of(context), context.output
    state_dir = context.made_state_dir() if from_folder else _existing(context.state_dir)
    if from_folder:
        if not yes:
            folders = [str(folder) for folder in from_folder]
            return dry_run(output, {"folders": folders, "database": condition(state_dir)})
        with output.progress() as report:
            done = adopt_folders(state_dir, settings, from_folder, time.time(), report)
        return _tell(output, done)
    choice = choose_backup(state_dir, settings, file)
    for words in choice.passed_over:
        output.note(f"passed over: {words}")
    if not yes:
        plan = {"backup": str(choice.path), "schema": choice.schema}
        return dry_run(output, plan | {"database": condition(state_dir)})
    with output.progress() as report:
        done = restore(state_dir, settings, choice.path, time.time(), report)
    return _tell(output, done)


def _list(context: Context) -> int:
    from daemon.restoring import known_backups

    rows = [
        {
            "at": iso_time(one.at),
            "bytes": one.size,
            "reason": one.reason,
            "file": str(one.path),
        }
        for one in known_backups(context.state_dir, load_settings_of(context))
    ]
    context.output.listing(BACKUP_COLUMNS, rows, empty="no backup yet")
    return 0


def _tell(output: Output, result: dict[str, Any]) -> int:
    """Print what was done; 3 where something could not be looked at."""
    skipped = result.get("skipped", [])
    if output.as_json:
        output.json(result)
    else:
        output.facts({name: value for name, value in result.items() if name != "skipped"})
        output.lines(f"skipped\t{words}" for words in skipped)
    return 3 if skipped else 0


def _existing(state_dir: Path) -> Path:
    if not state_dir.is_dir():
        raise no_state(state_dir)
    return state_dir


def _require_database(state_dir: Path) -> None:
    path = state_dir / DATABASE_NAME
    if not path.exists() or path.stat().st_size == 0:
        raise no_state(state_dir)
