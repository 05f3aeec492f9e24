"""The entry point: the app, its groups of commands, and what becomes of errors.

Every expected error is a `StillwatchError` and ends as one line with a hint and its exit code
(contract, section 6). Command modules import what is heavy inside their functions.
"""

import sys
from collections.abc import Sequence
from typing import Annotated, Final, cast

import typer
import typer.core
import typer.main

from cli import (
    admin,
    analyse,
    clusters,
    dedup,
    frames,
    maintain,
    prune,
    report,
    review,
    run,
    similar,
    status,
)
from cli.context import Context, command
from cli.output import Output
from cli.plain_values import use_plain_values
from storage.errors import StillwatchError, UsageError

HELP_NAMES: Final = ("-h", "--help")

app = typer.Typer(
    name="stillwatch",
    add_completion=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": list(HELP_NAMES)},
    epilog="Start with: stillwatch demo, or stillwatch run FOLDER. Every command has --help.",
)
for module in (
    run,
    status,
    frames,
    clusters,
    review,
    similar,
    analyse,
    report,
    dedup,
    maintain,
    prune,
    admin,
):
    module.register(app)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        Output(as_json=False).lines([f"stillwatch {version('stillwatch')}"])
        raise typer.Exit


@app.callback(invoke_without_command=True)
@command
def root(
    context: Context,
    version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_print_version, help="Print the version and stop."
        ),
    ] = False,
) -> None:
    """Keeps a camera's picture folder in order.

    Encodes what arrives, clusters it, flags what is new, files near-duplicates.
    """
    raise UsageError("A command is missing.", hint="`stillwatch --help` lists the commands.")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: Without the program's name; None takes those of the process.

    Returns:
        The exit code of the contract, section 6.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    before_files = given[: given.index("--")] if "--" in given else given
    output = Output(as_json="--json" in before_files)
    # A name with odd bytes must never end a listing with an error.
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        code = app_command()(args=given, prog_name="stillwatch", standalone_mode=False)
        return int(code or 0)
    except StillwatchError as error:
        output.error(error)
        return error.exit_code
    except typer.TyperException as error:
        output.error(_as_usage_error(error))
        return error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        output.note("interrupted")
        return 130
    except Exception as error:
        return _report_bug(output, error, verbose="--verbose" in before_files)


def app_command() -> typer.core.TyperGroup:
    """The app as a command object, for running it and for the test of the documentation."""
    group = cast(typer.core.TyperGroup, typer.main.get_command(app))
    use_plain_values(group, HELP_NAMES)
    return group


def _as_usage_error(error: typer.TyperException) -> UsageError:
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "stillwatch"
    return UsageError(error.format_message(), hint=f"`{path} --help` explains it.")


def _report_bug(output: Output, error: Exception, *, verbose: bool) -> int:
    if verbose:
        import traceback

        sys.stderr.write(traceback.format_exc())
    name = type(error).__name__
    output.error(
        StillwatchError(
            f"{name}: {error}",
            hint="This is a bug; run with --verbose for the traceback.",
        )
    )
    return 1


if __name__ == "__main__":
    sys.exit(main())
