"""`clusters` and its subcommands: look at the clusters, and have the last word on them."""

from pathlib import Path
from typing import Annotated, Any

import typer

from cli.asking import ask
from cli.context import Context, command
from cli.output import Column
from cli.review import NoWaitOption, YesOption, dry_run, print_answer
from storage.errors import ConflictError, UsageError
from storage.history import cluster_history
from storage.listing import clusters
from storage.names import CLUSTER, FRAME, format_id
from storage.reading import Reader
from storage.resolving import resolve_cluster, resolve_frame

CLUSTER_COLUMNS = (
    Column("ID", "id"),
    Column("NAME", "name"),
    Column("SIZE", "size", right=True),
    Column("MEDOID", "medoid"),
    Column("LIMIT", "max_distance", right=True),
    Column("FIRST SEEN", "first_seen", is_time=True),
    Column("LAST SEEN", "last_seen", is_time=True),
    Column("MARKS", lambda row: [mark for mark in ("pinned", "ignored") if row[mark]]),
)
HISTORY_COLUMNS = (
    Column("WHEN", "at", is_time=True),
    Column("CLUSTER", "cluster"),
    Column("NAME", "name"),
    Column("EVENT", "event"),
    Column("RUN", "run"),
    Column("BY", "by"),
    Column("WHAT", "text"),
)

ClusterArgument = Annotated[
    str,
    typer.Argument(metavar="CLUSTER", help="Cluster id (c3), unique beginning, or name."),
]


def register(app: typer.Typer) -> None:
    """Add the commands of this module to the app."""
    group = typer.Typer(invoke_without_command=True)
    group.callback(epilog="Example: stillwatch clusters rename c3 'empty yard' --yes")(
        list_clusters
    )
    for name, function, example in (
        ("history", history, "clusters history c3"),
        ("rename", rename_cluster, "clusters rename c3 'empty yard' --yes"),
        ("merge", merge_clusters, "clusters merge c3 c7 --yes"),
        ("split", split_cluster, "clusters split c3 f12 f40 --yes"),
        ("pin", pin_cluster, "clusters pin c3 --yes"),
        ("ignore", ignore_cluster, "clusters ignore c3 --yes"),
        ("export", export_clusters, "clusters export ./review"),
    ):
        group.command(name, epilog=f"Example: stillwatch {example}")(function)
    app.add_typer(group, name="clusters", rich_help_panel="Review")


@command
def list_clusters(context: Context) -> int:
    """List the clusters; name them with `clusters rename`."""
    with Reader(context.state_dir) as reader:
        context.output.listing(CLUSTER_COLUMNS, clusters(reader), empty="no cluster yet")
    return 0


@command
def history(
    context: Context,
    cluster: Annotated[
        str | None,
        typer.Argument(metavar="[CLUSTER]", help="Only this cluster, also one that has ended."),
    ] = None,
) -> int:
    """Tell what happened to the clusters: births, splits, merges, ends, returns, human words."""
    with Reader(context.state_dir) as reader:
        number = None if cluster is None else resolve_cluster(reader, cluster)
        lines = cluster_history(reader, number)
    context.output.listing(HISTORY_COLUMNS, lines, empty="nothing happened to the clusters yet")
    return 0


@command
def rename_cluster(
    context: Context,
    cluster: ClusterArgument,
    name: Annotated[
        str,
        typer.Argument(
            help="The new name; it outlives every recluster. Empty takes the name away."
        ),
    ],
    yes: YesOption = False,
    no_wait: NoWaitOption = False,
) -> int:
    """Give a cluster a name of your own (a dry run without --yes)."""
    with Reader(context.state_dir) as reader:
        number = resolve_cluster(reader, cluster)
        row = reader.one("SELECT name FROM clusters WHERE id = ?", (number,))
        taken = reader.one("SELECT id FROM clusters WHERE name = ? AND id <> ?", (name, number))
    if taken is not None:
        raise UsageError(
            f"Cluster c{taken['id']} is already called so: {name}.", hint="Choose another name."
        )
    plan = {"cluster": format_id(CLUSTER, number), "old_name": row["name"], "name": name}
    return _do(context, "cluster_rename", {"cluster": number, "name": name}, plan, yes, no_wait)


@command
def merge_clusters(
    context: Context,
    cluster: ClusterArgument,
    others: Annotated[
        list[str], typer.Argument(metavar="OTHER...", help="Clusters that become part of it.")
    ],
    yes: YesOption = False,
    no_wait: NoWaitOption = False,
) -> int:
    """Make one cluster of several; id and name of the first survive (a dry run without --yes)."""
    with Reader(context.state_dir) as reader:
        into, *rest = numbers = [resolve_cluster(reader, text) for text in (cluster, *others)]
        if len(set(numbers)) < len(numbers):
            raise UsageError("Name two or more different clusters.")
        for number in numbers:
            _check_active(reader, number)
        counted = [
            reader.one("SELECT count(*) AS n FROM frames WHERE cluster_id = ?", (number,))["n"]
            for number in rest
        ]
    plan = {
        "cluster": format_id(CLUSTER, into),
        "merged": [format_id(CLUSTER, number) for number in rest],
        "frames": sum(counted),
    }
    return _do(context, "cluster_merge", {"cluster": into, "others": rest}, plan, yes, no_wait)


@command
def split_cluster(
    context: Context,
    cluster: ClusterArgument,
    frames: Annotated[
        list[str],
        typer.Argument(
            metavar="FRAME FRAME...", help="Frames of it; each begins a part of its own."
        ),
    ],
    yes: YesOption = False,
    no_wait: NoWaitOption = False,
) -> int:
    """Cut a cluster; every frame of it goes to the nearest one named (a dry run without --yes)."""
    with Reader(context.state_dir) as reader:
        number = resolve_cluster(reader, cluster)
        anchors = [resolve_frame(reader, text) for text in frames]
    plan = _plan_split(context.state_dir, number, anchors)
    arguments = {"cluster": number, "frames": anchors}
    return _do(context, "cluster_split", arguments, plan, yes, no_wait)


def _plan_split(state_dir: Path, number: int, anchors: list[int]) -> dict[str, Any]:
    from daemon.jobs.cluster_split import plan_split
    from storage.engine import Database

    database = Database(state_dir, read_only=True)
    try:
        with database.read() as connection:
            keeps, leave = plan_split(connection, number, anchors)
    finally:
        database.close()
    return {
        "cluster": format_id(CLUSTER, number),
        "stay": len(keeps.frames),
        "frames": sum(len(part.frames) for part in leave),
        "parts": [f"{format_id(FRAME, part.anchor)}: {len(part.frames)}" for part in leave],
    }


@command
def pin_cluster(
    context: Context,
    cluster: ClusterArgument,
    off: Annotated[bool, typer.Option("--off", help="Take the pin away.")] = False,
    yes: YesOption = False,
    no_wait: NoWaitOption = False,
) -> int:
    """Keep a cluster's id and name even when it is empty (a dry run without --yes)."""
    return _switch(context, "pin", cluster, off, yes, no_wait)


@command
def ignore_cluster(
    context: Context,
    cluster: ClusterArgument,
    off: Annotated[bool, typer.Option("--off", help="Let its frames alarm again.")] = False,
    yes: YesOption = False,
    no_wait: NoWaitOption = False,
) -> int:
    """Let the frames of a cluster never alarm (a dry run without --yes)."""
    return _switch(context, "ignore", cluster, off, yes, no_wait)


@command
def export_clusters(
    context: Context,
    folder: Annotated[
        Path, typer.Argument(metavar="OUT_DIR", help="A folder that is absent or empty.")
    ],
    cluster: Annotated[
        str | None, typer.Option("--cluster", help="Only this cluster (id or name).")
    ] = None,
    force: Annotated[
        bool,
        typer.Option("--force", help="Replace the files of an earlier export in the folder."),
    ] = False,
) -> int:
    """Write the clusters as a table, a contact sheet each, and a plot of their sizes."""
    from cli.export import export

    with context.output.progress() as report:
        done = export(context, folder, cluster, force=force, report=report)
    skipped = done["skipped"]
    for frame, reason in skipped:
        context.output.note(f"{frame} is not on its contact sheet: {reason}")
    done["skipped"] = len(skipped)
    if context.output.as_json:
        context.output.json(done)
    else:
        context.output.facts(done)
    return 0


def _switch(context: Context, word: str, cluster: str, off: bool, yes: bool, no_wait: bool) -> int:
    with Reader(context.state_dir) as reader:
        number = resolve_cluster(reader, cluster)
        _check_active(reader, number)
    plan = {"cluster": format_id(CLUSTER, number), f"{word}": not off}
    return _do(context, f"cluster_{word}", {"cluster": number, "on": not off}, plan, yes, no_wait)


def _do(
    context: Context,
    kind: str,
    arguments: dict[str, Any],
    plan: dict[str, Any],
    yes: bool,
    no_wait: bool,
) -> int:
    if not yes:
        return dry_run(context.output, plan)
    answer = ask(context, kind, arguments, wait=not no_wait)
    return print_answer(context.output, answer, undoable=True)


def _check_active(reader: Reader, number: int) -> None:
    row = reader.one("SELECT state, merged_into FROM clusters WHERE id = ?", (number,))
    if row["state"] == "active":
        return
    own, heir = format_id(CLUSTER, number), format_id(CLUSTER, row["merged_into"])
    raise ConflictError(
        f"{own} has ended." if heir is None else f"{own} was merged into {heir}.",
        hint=f"`stillwatch clusters history {own}` tells when.",
    )
