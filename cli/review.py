"""`clusters`, `novel`, `similar`: look at what was found, and say what is right."""

from typing import Annotated, Any

import typer

from cli.asking import Answer, ask
from cli.context import Context, command
from cli.output import Column, Output
from cli.status import FRAME_COLUMNS
from storage.errors import ConflictError, UsageError
from storage.listing import clusters, frame_row, novelties
from storage.names import CLUSTER, FRAME, format_id
from storage.reading import Reader

CLUSTER_COLUMNS = (
    Column("ID", "id"),
    Column("NAME", "name"),
    Column("SIZE", "size", right=True),
    Column("MEDOID", "medoid"),
    Column("LIMIT", "max_distance", right=True),
    Column("FIRST SEEN", "first_seen", is_time=True),
    Column("LAST SEEN", "last_seen", is_time=True),
)
SIMILAR_COLUMNS = (
    Column("PERCENT", lambda row: f"{row['percent']:.1f}", right=True),
    Column("FRAME", "frame"),
    Column("CAMERA", "camera"),
    Column("CLUSTER", "cluster"),
    Column("DISTANCE", "distance", right=True),
    Column("PATH", "path"),
)

YesOption = Annotated[
    bool, typer.Option("--yes", help="Do it; without this the command only says what it would do.")
]
NoWaitOption = Annotated[
    bool,
    typer.Option("--no-wait", help="Do not wait for the daemon; print the id of the request."),
]
FramesArgument = Annotated[
    list[str],
    typer.Argument(metavar="FRAME...", help="Frame ids, unique beginnings, or paths of files."),
]


def register(app: typer.Typer) -> None:
    """Add the commands of this module to the app."""
    panel = "Review"
    group = typer.Typer(invoke_without_command=True)
    group.callback(epilog="Example: stillwatch clusters rename c3 'empty yard' --yes")(
        list_clusters
    )
    group.command("rename", epilog="Example: stillwatch clusters rename c3 'empty yard' --yes")(
        rename_cluster
    )
    app.add_typer(group, name="clusters", rich_help_panel=panel)
    group = typer.Typer(invoke_without_command=True)
    group.callback(epilog="Example: stillwatch novel dismiss f12 f13 --yes")(list_novel)
    group.command("accept", epilog="Example: stillwatch novel accept f12 --yes")(accept)
    group.command("dismiss", epilog="Example: stillwatch novel dismiss f12 --yes")(dismiss)
    app.add_typer(group, name="novel", rich_help_panel=panel)
    app.command(
        "similar",
        rich_help_panel=panel,
        epilog="Examples: stillwatch similar f12 -k 5 · stillwatch similar a.jpg b.jpg",
    )(similar)


@command
def list_clusters(context: Context) -> int:
    """List the clusters; name them with `clusters rename`."""
    with Reader(context.state_dir) as reader:
        context.output.listing(CLUSTER_COLUMNS, clusters(reader), empty="no cluster yet")
    return 0


@command
def rename_cluster(
    context: Context,
    cluster: Annotated[str, typer.Argument(help="Cluster id (c3), unique beginning, or name.")],
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
        number = reader.resolve_cluster(cluster)
        row = reader.one("SELECT name FROM clusters WHERE id = ?", (number,))
        taken = reader.one("SELECT id FROM clusters WHERE name = ? AND id <> ?", (name, number))
    if taken is not None:
        raise UsageError(
            f"Cluster c{taken['id']} is already called so: {name}.", hint="Choose another name."
        )
    plan = {"cluster": format_id(CLUSTER, number), "old_name": row["name"], "name": name}
    if not yes:
        return dry_run(context.output, plan)
    answer = ask(context, "cluster_rename", {"cluster": number, "name": name}, wait=not no_wait)
    return print_answer(context.output, answer, undoable=True)


@command
def list_novel(context: Context) -> int:
    """List what is new and not yet explained, whole scenes first."""
    with Reader(context.state_dir) as reader:
        context.output.listing(FRAME_COLUMNS, novelties(reader), empty="nothing novel")
    return 0


@command
def accept(
    context: Context, frames: FramesArgument, yes: YesOption = False, no_wait: NoWaitOption = False
) -> int:
    """Say that frames are right and to be expected from now on (a dry run without --yes)."""
    return _decide(context, "novel_accept", frames, yes=yes, wait=not no_wait)


@command
def dismiss(
    context: Context, frames: FramesArgument, yes: YesOption = False, no_wait: NoWaitOption = False
) -> int:
    """Say that frames are a false alarm of their nearest cluster (a dry run without --yes)."""
    return _decide(context, "novel_dismiss", frames, yes=yes, wait=not no_wait)


def _decide(context: Context, kind: str, texts: list[str], *, yes: bool, wait: bool) -> int:
    with Reader(context.state_dir) as reader:
        numbers = list(dict.fromkeys(reader.resolve_frame(text) for text in texts))
        for number in numbers:
            state = frame_row(reader, number)["state"]
            if state != "novel":
                raise ConflictError(
                    f"f{number} is not novel but {state.replace('_', ' ')}.",
                    hint="`stillwatch novel` lists the novel frames.",
                )
    if not yes:
        ids = [format_id(FRAME, number) for number in numbers]
        return dry_run(context.output, {"decision": kind.removeprefix("novel_"), "frames": ids})
    answer = ask(context, kind, {"frames": numbers}, wait=wait)
    return print_answer(context.output, answer, undoable=True)


def dry_run(output: Output, plan: dict[str, Any]) -> int:
    """Print what would be done, and that nothing was; the exit code is 0."""
    if output.as_json:
        output.json({"dry_run": True, **plan})
    else:
        output.facts(plan)
    output.note("Dry run: nothing was changed. Add --yes to do it.")
    return 0


def print_answer(output: Output, answer: Answer, *, undoable: bool = False) -> int:
    """Print a job's result, and how to take it back if that can be; returns its exit code."""
    result = answer.result
    if undoable and "run" in result:
        output.note(f"`stillwatch undo {result['run']} --yes` takes it back.")
    if output.as_json:
        output.json(result)
        return answer.exit_code
    entries = result.get("entries")
    output.facts({key: value for key, value in result.items() if key != "entries"})
    if isinstance(entries, list) and entries and isinstance(entries[0], dict):
        columns = [Column(key.upper(), key) for key in entries[0]]
        output.listing(columns, entries)
    return answer.exit_code


@command
def similar(
    context: Context,
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGE [OTHER]",
            help="A picture file or a frame id; with a second one: how alike the two are.",
        ),
    ],
    k: Annotated[int, typer.Option("-k", min=1, help="How many frames to list.")] = 10,
    trees: Annotated[
        int | None,
        typer.Option(
            "--trees", min=1, help="Build an Annoy forest of so many trees for this question."
        ),
    ] = None,
    search_k: Annotated[
        int, typer.Option("--search-k", min=-1, help="Annoy nodes to look at; -1: its default.")
    ] = -1,
) -> int:
    """List the frames most like a picture, or say how alike two pictures are (0 to 100 %)."""
    if len(images) > 2:
        raise UsageError("Name one picture, or two to compare.", hint="`stillwatch similar --help`")
    from cli.similarity import compare, nearest

    output = context.output
    if len(images) == 2:
        alike = compare(context, images[0], images[1])
        if output.as_json:
            output.json(alike)
        else:
            output.lines([f"{alike['percent']:.1f} %"])
        return 0
    found = nearest(context, images[0], k=k, trees=trees, search_k=search_k)
    output.listing(SIMILAR_COLUMNS, found, empty="no frame to compare with yet")
    return 0
