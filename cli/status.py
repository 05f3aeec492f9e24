"""`status`: is it running, what came, what was found."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Self

import typer

from cli.context import Context, command
from cli.output import Output, printable
from cli.screen import problems, settings_problems, status_screen
from storage.errors import UsageError
from storage.lock import holder
from storage.overview import camera_summaries, status
from storage.reading import Reader

WATCH_SECONDS: Final = 1.0

EXIT_DEGRADED: Final = 4
EXIT_NOT_RUNNING: Final = 5


def register(app: typer.Typer) -> None:
    """Add the command of this module to the app."""
    app.command("status", rich_help_panel="Look", epilog="Example: stillwatch status --check")(
        show_status
    )


@command
def show_status(
    context: Context,
    watch: Annotated[
        bool, typer.Option("--watch", help="Print it again every second until Ctrl-C.")
    ] = False,
    check: Annotated[
        bool,
        typer.Option("--check", help="Exit with 0 if healthy, 4 if degraded, 5 if not running."),
    ] = False,
) -> int:
    """One screen: is it running, what came, what was found."""
    if watch and check:
        raise UsageError("--watch and --check exclude each other.")
    if watch:
        _watch_status(context)
    state = print_status(context.state_dir, context.output)
    if not check:
        return 0
    return {"running": 0, "degraded": EXIT_DEGRADED}.get(state, EXIT_NOT_RUNNING)


@dataclass(frozen=True, slots=True)
class _Look:
    """The state of everything at one moment."""

    pid: int | None
    facts: dict[str, Any]
    cameras: list[dict[str, Any]]

    @classmethod
    def at(cls, state_dir: Path) -> Self:
        pid = holder(state_dir)
        running = pid is not None
        with Reader(state_dir) as reader:
            cameras = camera_summaries(reader, running=running)
            return cls(pid, status(reader, running=running), cameras)

    def screen(self, state_dir: Path) -> list[Any]:
        return status_screen(self.facts, self.cameras, self.pid, state_dir, time.time())


def print_status(state_dir: Path, output: Output) -> str:
    """Print the status once, as an object or as a screen; returns the overall state.

    Raises:
        NoStateError: There is no database yet.
    """
    look = _Look.at(state_dir)
    if output.as_json:
        output.json(look.facts)
    elif output.is_terminal:
        output.rich(*look.screen(state_dir))
    else:
        output.facts(_flat(look.facts))
    if not output.is_terminal:
        told = problems(look.cameras) | settings_problems(look.facts)
        for name, text in told.items():
            output.note(f"{name}: {text}")
    return str(look.facts["state"])


def _flat(facts: dict[str, Any], prefix: str = "") -> dict[str, object]:
    flat: dict[str, object] = {}
    for key, value in facts.items():
        if isinstance(value, dict):
            flat.update(_flat(value, f"{prefix}{key}."))
        elif isinstance(value, list):
            for item in value:
                flat.update(_flat(item, f"{prefix}{key}.{printable(item['name'])}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _watch_status(context: Context) -> None:
    """Print again and again; ends by KeyboardInterrupt (exit code 130)."""
    output = context.output
    if not output.is_terminal:
        while True:
            print_status(context.state_dir, output)
            time.sleep(WATCH_SECONDS)
    from rich.console import Group
    from rich.live import Live

    with Live(console=output.console(), screen=True, auto_refresh=False) as live:
        while True:
            look = _Look.at(context.state_dir)
            live.update(Group(*look.screen(context.state_dir)), refresh=True)
            time.sleep(WATCH_SECONDS)
