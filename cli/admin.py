"""`config`, `doctor` and, from their own modules, `encoders`, `verify`, `service`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.context import Context, command, load_settings_of
from cli.output import Column
from storage.errors import ConflictError, UsageError

if TYPE_CHECKING:
    from daemon.findings import Check

CHECK_COLUMNS = (
    Column("STATUS", "status"),
    Column("CHECK", "id"),
    Column("FOUND", "summary"),
    Column("DO", "fix"),
)
SETTING_COLUMNS = (
    Column("SETTING", "setting"),
    Column("VALUE", "value"),
    Column("DEFAULT", "default"),
)


def register(app: typer.Typer) -> None:
    """Add the commands of this module to the app."""
    panel = "Administer"
    # Their commands stand in modules of their own.
    from cli.encoders import register as register_encoders

    register_encoders(app, panel)
    group = typer.Typer(help="Show the settings, or write an example of them.")
    group.command("show", epilog="Example: stillwatch config show --json")(show_config)
    group.command("example", epilog="Example: stillwatch config example stillwatch.toml")(
        write_example
    )
    app.add_typer(group, name="config", rich_help_panel=panel)
    app.command("doctor", rich_help_panel=panel, epilog="Example: stillwatch doctor --json")(doctor)
    from cli.backup import register as register_backup
    from cli.service import register as register_service
    from cli.verify import register as register_verify

    register_verify(app, panel)
    register_backup(app, panel)
    register_service(app, panel)


@command
def show_config(context: Context) -> int:
    """Print the settings in force, each with its default."""
    from cli.settings_text import flat_settings
    from daemon.settings import Settings

    settings = load_settings_of(context)
    output = context.output
    if output.as_json:
        output.json(settings.model_dump(mode="json"))
        return 0
    defaults = flat_settings(Settings())
    rows = [
        {"setting": name, "value": value, "default": defaults.get(name)}
        for name, value in flat_settings(settings).items()
    ]
    output.listing(SETTING_COLUMNS, rows)
    return 0


@command
def write_example(
    context: Context,
    file: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="Default: standard output.")
    ] = None,
) -> int:
    """Write a commented settings file with every setting, its default and what it means."""
    from cli.settings_text import example_toml

    text = example_toml()
    output = context.output
    if file is None:
        if output.as_json:
            output.json({"toml": text})
        else:
            output.lines(text.splitlines())
        return 0
    try:
        with file.open("x", encoding="utf-8") as stream:
            stream.write(text)
    except FileExistsError:
        raise ConflictError(
            f"{file} is there already; nothing was written.", hint="Name another file."
        ) from None
    except OSError as exc:
        raise UsageError(f"{file} cannot be written: {exc.strerror}.", path=str(file)) from exc
    if output.as_json:
        output.json({"file": str(file)})
    output.note(f"{file} is written; every setting in it is a comment until you change it.")
    return 0


@command
def doctor(context: Context) -> int:
    """Check the installation: exit code 1 if anything fails, with a fix for each."""
    from daemon.doctor import examine

    checks = examine(context.state_dir, context.config)
    output = context.output
    output.listing(CHECK_COLUMNS, [_finding(check) for check in checks])
    if not output.as_json:
        for check in checks:
            if check.steps:
                lines = (f"  {n}. {step}" for n, step in enumerate(check.steps, start=1))
                output.lines(["", f"What to do about the {check.id}, in this order:", *lines])
    return 1 if any(check.status == "fail" for check in checks) else 0


def _finding(check: "Check") -> dict[str, object]:
    found: dict[str, object] = {
        "id": check.id,
        "status": check.status,
        "summary": check.summary,
        "fix": check.fix,
    }
    return found | ({"steps": list(check.steps)} if check.steps else {})
