"""`run` and `demo`: the daemon in the foreground."""

import faulthandler
import logging
import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from cli.context import Context, command, user_state
from cli.logs import log_events
from cli.status import print_status
from storage.errors import FolderError


def register(app: typer.Typer) -> None:
    """Add the commands of this module to the app."""
    panel = "Run"
    app.command(
        "run", rich_help_panel=panel, epilog="Example: stillwatch run /srv/camera/yard --file"
    )(run)
    app.command("demo", rich_help_panel=panel, epilog="Example: stillwatch demo --seconds 120")(
        demo
    )


@command
def run(
    context: Context,
    folders: Annotated[
        list[Path],
        typer.Argument(metavar="FOLDER...", help="Picture folders; each is one camera."),
    ],
    once: Annotated[
        bool,
        typer.Option("--once", help="Take in what is there, sort it, print the status and stop."),
    ] = False,
    file: Annotated[
        bool,
        typer.Option("--file", help="Put frames into folders below FOLDER/stillwatch/."),
    ] = False,
) -> int:
    """Watch picture folders and keep them in order, in the foreground, until Ctrl-C."""
    for folder in folders:
        check_folder(folder)
    state_dir = context.made_state_dir()
    output = context.output
    from daemon.foreground import main
    from daemon.run_options import RunOptions

    options = RunOptions(
        folders=tuple(folders), state_dir=state_dir, config=context.config, once=once, file=file
    )
    report: Callable[[str], None] = output.note
    if not once:
        faulthandler.enable()  # systemd's watchdog aborts a daemon that hangs: tell where it hung
        log_events()
        if not sys.stderr.isatty():
            report = logging.getLogger(__name__).info
    code = main(options, report)
    if once:
        print_status(state_dir, output)
    return code


def check_folder(folder: Path) -> None:
    """Refuse a folder that cannot be watched, before anything heavy is loaded.

    Raises:
        FolderError: It is absent, no folder, or this user may not read it.
    """
    try:
        is_folder = stat.S_ISDIR(folder.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        summary, hint = "There is no such folder", "Make it, or mend the name."
    except OSError as exc:
        summary, hint = f"This folder cannot be read ({exc.strerror})", "Grant this user the right."
    else:
        if is_folder and os.access(folder, os.R_OK | os.X_OK):
            return
        if is_folder:
            summary, hint = "This folder may not be read", "Grant this user the right to read it."
        else:
            summary, hint = "This is a file, not a folder", "Name the folder that it is in."
    raise FolderError(f"{summary}: {folder}.", hint=hint, path=str(folder))


@command
def demo(
    context: Context,
    folder: Annotated[
        Path | None,
        typer.Argument(metavar="[FOLDER]", help="Where the simulated camera writes."),
    ] = None,
    seconds: Annotated[
        float | None,
        typer.Option("--seconds", min=1, help="Stop after this time. Default: until Ctrl-C."),
    ] = None,
) -> int:
    """Play a simulated camera in a folder of its own, and keep that folder in order."""
    state_dir = context.state or user_state().with_name("stillwatch-demo")
    from daemon.demo import run_demo

    return run_demo(state_dir, folder, context.config, seconds=seconds, report=context.output.note)
