"""`service`: write, show and remove the systemd files of this installation."""

from pathlib import Path
from typing import Annotated

import typer

from cli.context import SYSTEM_STATE, Context, command, user_state
from cli.output import Column, Output
from cli.run import check_folder

FILE_COLUMNS = (Column("CONDITION", "condition"), Column("FILE", "path"))

UserOption = Annotated[
    bool, typer.Option("--user", help="The service of this user instead of the whole machine.")
]
ForceOption = Annotated[
    bool, typer.Option("--force", help="Also replace or remove a file that was edited by hand.")
]


def register(app: typer.Typer, panel: str) -> None:
    """Add the group to the app."""
    group = typer.Typer(help="Run stillwatch as a systemd service.")
    group.command(
        "install", epilog="Example: sudo stillwatch service install /srv/camera/yard --file"
    )(install)
    group.command("uninstall", epilog="Example: stillwatch service uninstall --user")(uninstall)
    group.command("show", epilog="Example: stillwatch service show")(show)
    app.add_typer(group, name="service", rich_help_panel=panel)


@command
def install(
    context: Context,
    folders: Annotated[
        list[Path], typer.Argument(metavar="FOLDER...", help="The folders to watch.")
    ],
    user: UserOption = False,
    file: Annotated[bool, typer.Option("--file", help="Run with filing switched on.")] = False,
    account: Annotated[
        str, typer.Option("--account", help="Account of the machine's service.")
    ] = "stillwatch",
    force: ForceOption = False,
) -> int:
    """Write a unit for this installation, and print the commands that start it."""
    for folder in folders:
        check_folder(folder)
    from daemon.unit_files import UnitOptions, next_commands
    from daemon.unit_files import install as write_files

    config = context.config
    options = UnitOptions(
        folders=tuple(folder.absolute() for folder in folders),
        state_dir=(context.state or (user_state() if user else SYSTEM_STATE)).absolute(),
        user=account,
        config=None if config is None else config.absolute(),
        user_mode=user,
        file=file,
    )
    written = write_files(options, force=force)
    _report(context.output, written, "written", next_commands(user_mode=user))
    return 0


@command
def uninstall(context: Context, user: UserOption = False, force: ForceOption = False) -> int:
    """Remove what `service install` wrote; pictures and database stay."""
    from daemon.unit_files import next_commands
    from daemon.unit_files import uninstall as remove_files

    removed = remove_files(user_mode=user, force=force)
    _report(context.output, removed, "removed", next_commands(user_mode=user, removed=True))
    return 0


def _report(output: Output, files: list[Path], word: str, commands: list[str]) -> None:
    if output.as_json:
        output.json({word: [str(file) for file in files], "next": commands})
        return
    output.lines(f"{word}: {file}" for file in files)
    output.note("Now run:")
    output.lines(f"  {line}" for line in commands)


@command
def show(context: Context, user: UserOption = False) -> int:
    """Show which files of the service are there, and the unit's text."""
    from daemon.unit_files import show as inspect_files

    files = inspect_files(user_mode=user)
    output = context.output
    if output.as_json:
        output.listing(
            (),
            (
                {"path": str(file.path), "condition": file.condition, "text": file.text}
                for file in files
            ),
        )
        return 0
    output.listing(
        FILE_COLUMNS, ({"condition": file.condition, "path": str(file.path)} for file in files)
    )
    for file in files:
        output.lines(["", f"# {file.path}", *file.text.splitlines()] if file.text else [])
    return 0
