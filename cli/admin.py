"""`encoders`, `config`, `doctor`, `verify`, `service`: administration."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.context import Context, command
from cli.output import Column
from storage.errors import ConflictError, UsageError
from storage.reading import Reader

if TYPE_CHECKING:
    from daemon.settings import Settings

ENCODER_COLUMNS = (
    Column("ID", "id"),
    Column("PREPARED", "prepared"),
    Column("DIM", "dim", right=True),
    Column("INPUT", lambda row: "x".join(map(str, row["input_size"]))),
    Column("SPACE", "space"),
    Column("DESCRIPTION", "description"),
)
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
    group = typer.Typer(invoke_without_command=True)
    group.callback(epilog="Example: stillwatch encoders prepare")(list_encoders)
    group.command("prepare", epilog="Example: stillwatch encoders prepare efficientnet_lite0")(
        prepare_encoder
    )
    app.add_typer(group, name="encoders", rich_help_panel=panel)
    group = typer.Typer(help="Show the settings, or write an example of them.")
    group.command("show", epilog="Example: stillwatch config show --json")(show_config)
    group.command("example", epilog="Example: stillwatch config example stillwatch.toml")(
        write_example
    )
    app.add_typer(group, name="config", rich_help_panel=panel)
    app.command("doctor", rich_help_panel=panel, epilog="Example: stillwatch doctor --json")(doctor)
    app.command("verify", rich_help_panel=panel, epilog="Example: stillwatch verify --json")(verify)
    # Last: its commands stand in a module of their own.
    from cli.service import register as register_service

    register_service(app, panel)


def load(context: Context) -> "Settings":
    """The settings that hold for this invocation.

    Raises:
        SettingsError: The file is damaged, or `--config` names none.
    """
    from daemon.settings import default_path, load_settings

    path = context.config or default_path(context.state_dir)
    return load_settings(path, required=context.config is not None)


def _cache_dir(settings: "Settings") -> Path:
    from daemon.encoders import registry

    return settings.encoder.cache or registry.default_cache_dir()


@command
def list_encoders(context: Context) -> int:
    """List the encoders: networks that turn a picture into a vector."""
    cache = _cache_dir(load(context))
    from daemon.encoders import registry

    rows = [
        {
            "id": status.info.id,
            "prepared": status.prepared,
            "dim": status.info.dim,
            "input_size": list(status.info.input_size),
            "space": status.space,
            "source": status.info.source,
            "description": status.info.description,
        }
        for status in registry.list_encoders(cache)
    ]
    context.output.listing(ENCODER_COLUMNS, rows)
    return 0


@command
def prepare_encoder(
    context: Context,
    encoder: Annotated[
        str | None, typer.Argument(metavar="[ID]", help="Default: the one of the settings.")
    ] = None,
) -> int:
    """Convert an encoder for the daemon, once; it takes half a minute and 1.5 GB of memory."""
    settings = load(context)
    encoder_id = encoder or settings.encoder.id
    cache = _cache_dir(settings)
    output = context.output
    from daemon.encoders import registry

    with output.progress() as report:
        registry.prepare(encoder_id, cache, report)
    if output.as_json:
        output.json({"id": encoder_id, "prepared": True, "cache": str(cache)})
    else:
        output.note(f"The encoder {encoder_id} is prepared in {cache}.")
    return 0


@command
def show_config(context: Context) -> int:
    """Print the settings in force, each with its default."""
    from cli.settings_text import flat_settings
    from daemon.settings import Settings

    settings = load(context)
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
    rows = [
        {"id": check.id, "status": check.status, "summary": check.summary, "fix": check.fix}
        for check in checks
    ]
    context.output.listing(CHECK_COLUMNS, rows)
    return 1 if any(check.status == "fail" for check in checks) else 0


@command
def verify(context: Context) -> int:
    """Prove that nothing is lost: files, rows, vectors and journal agree (I1 to I7)."""
    Reader(context.state_dir).close()
    output = context.output
    from daemon.settings import default_path, load_settings
    from daemon.verification import verify as prove
    from storage.engine import Database

    config = context.config or default_path(context.state_dir)
    settings = load_settings(config, required=context.config is not None)
    ignored = frozenset(name.lower().encode() for name in settings.ingest.ignore)
    database = Database(context.state_dir, read_only=True)
    try:
        with output.progress() as report:
            found = prove(database, ignored, report)
    finally:
        database.close()
    if output.as_json:
        output.json(found)
    else:
        output.facts({"ok": found["ok"]})
        names = [name for name in found if name != "ok"]
        rows = [{"rule": name, "text": text} for name in names for text in found[name]]
        output.listing((Column("RULE", "rule"), Column("VIOLATION", "text")), rows)
    return 0 if found["ok"] else 1
