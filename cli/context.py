"""The global options, where the state folder is, and the decorator that gives both to a command.

`--state`, `--config`, `--json` and `--verbose` may stand before or after the command's name.
`command` adds them to a function's signature, so that the help and the shell completion of
every command show them, and hands the function one `Context` instead.
"""

import functools
import inspect
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.logs import set_up_logging
from storage.errors import FolderError
from storage.modes import make_private_folder

if TYPE_CHECKING:
    from cli.output import Output
    from daemon.settings import Settings

SYSTEM_STATE = Path("/var/lib/stillwatch")

StateOption = Annotated[
    Path | None,
    typer.Option(
        "--state",
        metavar="DIR",
        help="State folder. Default: $STILLWATCH_STATE, else ~/.local/state/stillwatch if it is"
        " there, else /var/lib/stillwatch.",
        rich_help_panel="Global options",
    ),
]
ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="Settings file. Default: stillwatch.toml in the state folder, if it is there.",
        rich_help_panel="Global options",
    ),
]
JsonOption = Annotated[
    bool,
    typer.Option(
        "--json",
        help="Print JSON, also for errors; a list is one object a line.",
        rich_help_panel="Global options",
    ),
]
VerboseOption = Annotated[
    bool,
    typer.Option(
        "--verbose",
        help="Tell more on stderr; a traceback for a bug.",
        rich_help_panel="Global options",
    ),
]
_GLOBALS: dict[str, tuple[Any, object]] = {
    "state": (StateOption, None),
    "config": (ConfigOption, None),
    "json": (JsonOption, False),
    "verbose": (VerboseOption, False),
}
"""Name -> annotation and default of the options that every command has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """The global options of one invocation."""

    state: Path | None = None
    config: Path | None = None
    json: bool = False
    verbose: bool = False

    @property
    def state_dir(self) -> Path:
        """The state folder; it need not be there."""
        if self.state is not None:
            return self.state
        named = os.environ.get("STILLWATCH_STATE")
        if named:
            return Path(named)
        own = user_state()
        return own if own.is_dir() else SYSTEM_STATE

    @property
    def output(self) -> "Output":
        """How this invocation prints."""
        from cli.output import Output

        return Output(as_json=self.json)

    def made_state_dir(self) -> Path:
        """The state folder for a command that may start a new one; makes it.

        Without `--state` and STILLWATCH_STATE: the user's folder, but for the superuser
        /var/lib/stillwatch where that can be written.

        Raises:
            FolderError: It cannot be made.
        """
        folder = self.state_dir
        unnamed = self.state is None and not os.environ.get("STILLWATCH_STATE")
        if unnamed and folder == SYSTEM_STATE:
            usable = os.geteuid() == 0 and os.access(folder, os.W_OK | os.X_OK)
            folder = folder if usable else user_state()
        try:
            make_private_folder(folder)
        except OSError as exc:
            raise FolderError(
                f"The state folder cannot be made: {exc.strerror}.",
                hint="Name another one with --state.",
                path=str(folder),
            ) from exc
        return folder


def load_settings_of(context: Context) -> "Settings":
    """The settings that hold for an invocation.

    Raises:
        SettingsError: The file is damaged, or `--config` names none.
    """
    from daemon.settings import default_path, load_settings

    path = context.config or default_path(context.state_dir)
    return load_settings(path, required=context.config is not None)


def user_state() -> Path:
    """The user's own state folder, by the XDG base directory rules; it need not be there."""
    base = os.environ.get("XDG_STATE_HOME", "")
    # The rules say that a relative path there is to be ignored.
    root = Path(base) if base.startswith("/") else Path("~/.local/state").expanduser()
    return root / "stillwatch"


def command(function: Callable[..., int | None]) -> Callable[..., int | None]:
    """Make a Typer command of a function whose first parameter is the `Context`.

    The four global options are added to its signature (but for one that the function has
    itself). On a group the function is skipped when a subcommand follows.
    """
    own = list(inspect.signature(function).parameters.values())[1:]
    added = _GLOBALS.keys() - {parameter.name for parameter in own}

    @functools.wraps(function)
    def run(ctx: typer.Context, **values: Any) -> int | None:
        given = {name: values.pop(name) for name in added}
        context = ctx.obj if isinstance(ctx.obj, Context) else Context()
        context = replace(context, **{name: value for name, value in given.items() if value})
        ctx.obj = context
        if ctx.invoked_subcommand is not None:
            return None
        set_up_logging(verbose=context.verbose)
        try:
            return function(context, **values)
        except BrokenPipeError:
            # The reader (`head`) has seen enough; the interpreter must not flush into it either.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
            _require_sound_database(context.state_dir)
            raise

    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters = [
        inspect.Parameter("ctx", keyword, annotation=typer.Context),
        *(parameter.replace(kind=keyword) for parameter in own),
        *(
            inspect.Parameter(name, keyword, annotation=annotation, default=default)
            for name, (annotation, default) in _GLOBALS.items()
            if name in added
        ),
    ]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in parameters}
    return run


def _require_sound_database(state_dir: Path) -> None:
    """What looks like a bug may be a damaged database, whose rows make no sense.

    Raises:
        DamagedDatabaseError: It is one.
    """
    from storage.backup import check_file
    from storage.database_file import DATABASE_NAME

    path = state_dir / DATABASE_NAME
    if path.exists():
        check_file(path)
