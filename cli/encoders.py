"""`encoders`: what can turn a picture into a vector, which one serves, and what that costs."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from cli.asking import ask
from cli.context import Context, command, load_settings_of
from cli.output import Column
from cli.review import NoWaitOption, YesOption, dry_run, print_answer
from cli.screen import counted, human_bytes
from storage.errors import ConflictError, NoStateError, NotFoundError, UsageError
from storage.reading import Reader
from storage.space_listing import gaps, space_bytes, spaces

if TYPE_CHECKING:
    from daemon.settings import Settings

ENCODER_COLUMNS: Final = (
    Column("ID", "id"),
    Column("PREPARED", "prepared"),
    Column("DIM", "dim", right=True),
    Column("INPUT", lambda row: "x".join(map(str, row["input_size"] or ("?",)))),
    Column("USE", "use"),
    Column("FRAMES", "frames", right=True),
    Column("SPACE", "space"),
    Column("DESCRIPTION", "description"),
)
NAMED: Final = 10
"""Frames without a vector that are named on a screen; --json names all."""


def register(app: typer.Typer, panel: str) -> None:
    """Add the commands of this module to the app."""
    group = typer.Typer(invoke_without_command=True)
    group.callback(epilog="Example: stillwatch encoders prepare")(list_encoders)
    group.command("prepare", epilog="Example: stillwatch encoders prepare efficientnet_lite0")(
        prepare_encoder
    )
    group.command("switch", epilog="Example: stillwatch encoders switch --yes")(switch_encoder)
    group.command(
        "forget", epilog="Example: stillwatch encoders forget efficientnet_lite0@58f1c3 --yes"
    )(forget_space)
    app.add_typer(group, name="encoders", rich_help_panel=panel)


def _cache_dir(settings: "Settings") -> Path:
    from daemon.encoders import registry

    return settings.encoder.cache or registry.default_cache_dir()


@command
def list_encoders(context: Context) -> int:
    """List the encoders: networks that turn a picture into a vector, and who uses which."""
    cache = _cache_dir(load_settings_of(context))
    from daemon.encoders import registry

    held, missing = _held(context)
    rows = []
    for status in registry.list_encoders(cache):
        space = held.pop(status.space or "", None)
        rows.append(
            {
                "id": status.info.id,
                "prepared": status.prepared,
                "dim": status.info.dim,
                "input_size": list(status.info.input_size),
                "space": status.space,
                "source": status.info.source,
                "description": status.info.description,
            }
            | _use(space, missing)
        )
    rows.extend(_unavailable(space) | _use(space, missing) for space in held.values())
    output = context.output
    output.listing(ENCODER_COLUMNS, rows)
    if not output.as_json:
        for row in rows:
            _note_missing(context, row)
    return 0


def _held(context: Context) -> tuple[dict[str, dict[str, Any]], dict[int, list[dict[str, Any]]]]:
    """Spaces of the state folder by name, and what those that are in use lack, by their id."""
    try:
        with Reader(context.state_dir) as reader:
            held = {space["space"]: space for space in spaces(reader)}
            used = [space["id"] for space in held.values() if space["use"]]
            return held, {space: gaps(reader, space) for space in used}
    except NoStateError:
        return {}, {}


def _use(space: dict[str, Any] | None, missing: dict[int, list[dict[str, Any]]]) -> dict[str, Any]:
    if space is None:
        return {"frames": 0, "use": "", "without_vector": []}
    without = missing.get(space["id"], [])
    return {"frames": space["frames"], "use": space["use"], "without_vector": without}


def _unavailable(space: dict[str, Any]) -> dict[str, Any]:
    """A space whose encoder is not offered, or has other weights by now."""
    return {
        "id": space["encoder"],
        "prepared": False,
        "dim": space["dim"],
        "input_size": None,
        "space": space["space"],
        "source": None,
        "description": "vectors of an encoder that is not there any more",
    }


def _note_missing(context: Context, row: dict[str, Any]) -> None:
    told = [entry for entry in row["without_vector"] if entry["reason"] is not None]
    if not told:
        return
    named = ", ".join(f"{entry['frame']} ({entry['reason']})" for entry in told[:NAMED])
    more = f" and {len(told) - NAMED:,} more" if len(told) > NAMED else ""
    context.output.note(
        f"{counted(len(told), 'frame')} without a vector of {row['id']}: {named}{more}"
    )


@command
def prepare_encoder(
    context: Context,
    encoder: Annotated[
        str | None, typer.Argument(metavar="[ID]", help="Default: the one of the settings.")
    ] = None,
) -> int:
    """Convert an encoder for the daemon, once; it takes half a minute and 1.5 GB of memory."""
    settings = load_settings_of(context)
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
def switch_encoder(context: Context, yes: YesOption = False, no_wait: NoWaitOption = False) -> int:
    """Change to the encoder of the settings after all, once that was undone (needs --yes)."""
    wanted = load_settings_of(context).encoder.id
    with Reader(context.state_dir) as reader:
        serving = [space["encoder"] for space in spaces(reader) if space["use"] == "serving"]
    if not yes:
        return dry_run(context.output, {"from": serving[0] if serving else None, "to": wanted})
    return print_answer(context.output, ask(context, "encoder_switch", {}, wait=not no_wait))


@command
def forget_space(
    context: Context,
    space: Annotated[
        str,
        typer.Argument(metavar="SPACE", help="Embedding space, or a unique beginning of its name."),
    ],
    yes: YesOption = False,
    no_wait: NoWaitOption = False,
) -> int:
    """Delete the vectors of a space that does not serve (a dry run without --yes)."""
    with Reader(context.state_dir) as reader:
        found = _find(spaces(reader), space)
        size = space_bytes(reader, found["id"])
    if found["use"]:
        word = "serves" if found["use"] == "serving" else "is being filled"
        raise ConflictError(
            f"{found['space']} {word}: its vectors are needed.",
            hint="Only a space that is not in use can be forgotten.",
        )
    if not yes:
        plan = {"space": found["space"], "frames": found["frames"], "size": human_bytes(size)}
        return dry_run(context.output, plan)
    answer = ask(context, "encoder_forget", {"space": found["space"]}, wait=not no_wait)
    return print_answer(context.output, answer)


def _find(known: list[dict[str, Any]], text: str) -> dict[str, Any]:
    exact = [space for space in known if space["space"] == text]
    found = exact or [space for space in known if space["space"].startswith(text)]
    if not found:
        raise NotFoundError(
            f"No space {text} holds vectors.", hint="`stillwatch encoders` lists them."
        )
    if len(found) > 1:
        names = ", ".join(space["space"] for space in found)
        raise UsageError(f"{text} may be {names}.", hint="Write more of the name.")
    return found[0]
