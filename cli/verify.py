"""`verify`: proves that nothing is lost, and mends what no user's file is needed for."""

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.asking import ask
from cli.context import Context, command, load_settings_of
from cli.output import Column, Output, ProgressReport
from cli.review import YesOption
from storage.errors import UsageError
from storage.reading import Reader

if TYPE_CHECKING:
    from daemon.verification import Examination

COLUMNS = (Column("RULE", "rule"), Column("VIOLATION", "text"))
REPAIR_COLUMNS = (Column("RULE", "rule"), Column("REPAIR", "repair"), Column("OF", "violation"))
_COUNTS = ("files", "hashed", "seconds")


def register(app: typer.Typer, panel: str) -> None:
    """Add the command to the app."""
    epilog = "Example: stillwatch verify --repair --yes"
    app.command("verify", rich_help_panel=panel, epilog=epilog)(verify)


@command
def verify(
    context: Context,
    quick: Annotated[
        bool,
        typer.Option(
            "--quick",
            help="Believe files whose size and times are unchanged instead of reading every one.",
        ),
    ] = False,
    repair: Annotated[
        bool,
        typer.Option(
            "--repair",
            help="Also mend what no picture has to be touched for: rows, caches, interrupted work"
            " (says what it would do; needs --yes to do it).",
        ),
    ] = False,
    yes: YesOption = False,
) -> int:
    """Prove that nothing is lost: files, rows, vectors and journal agree (I1 to I7)."""
    if yes and not repair:
        raise UsageError("--yes goes with --repair.", hint="Checking alone changes nothing.")
    Reader(context.state_dir).close()
    if repair and yes:
        return _repair(context, quick=quick)
    found = _examine(context, quick=quick)
    if not repair:
        _print_report(context.output, found.report())
        return 0 if found.report()["ok"] else 1
    from daemon.repair import planned

    repairs = [asdict(one) for one in planned(found.violations)]
    _print_report(context.output, found.report() | {"dry_run": True, "repairs": repairs})
    context.output.note("Dry run: nothing was changed. Add --yes to do it.")
    return 0 if found.report()["ok"] else 1


def _examine(context: Context, *, quick: bool) -> "Examination":
    from daemon.verification import examine
    from storage.engine import Database

    ignored = frozenset(n.lower().encode() for n in load_settings_of(context).ingest.ignore)
    database = Database(context.state_dir, read_only=True)
    try:
        with context.output.progress() as report:
            return examine(database, ignored, metered(report), quick=quick)
    finally:
        database.close()


def _repair(context: Context, *, quick: bool) -> int:
    interrupted = _interrupted(context)
    answer = ask(context, "repair", {"quick": quick})
    # whoever opens the state folder settles what was interrupted, before any job
    known = {one["violation"] for one in answer.result["repaired"]}
    settled = [one for one in interrupted if one["violation"] not in known]
    still = _interrupted(context)
    repaired = [one for one in settled if one not in still] + answer.result["repaired"]
    _print_report(context.output, answer.result | {"repaired": repaired})
    return answer.exit_code


def _interrupted(context: Context) -> list[dict[str, str]]:
    """What was begun and not ended, as repairs; nothing while a daemon may be at it."""
    from daemon.repair import interrupted_work

    return [asdict(one) for one in interrupted_work(context.state_dir)]


def _print_report(output: Output, report: Mapping[str, Any]) -> None:
    """JSON, or facts with the violations and repairs below them."""
    if output.as_json:
        output.json(report)
        return
    output.facts({"ok": report["ok"]} | {name: report[name] for name in _COUNTS if name in report})
    lists = [name for name, value in report.items() if _is_texts(value)]
    rows = [{"rule": name, "text": text} for name in lists for text in report[name]]
    if rows:
        output.listing(COLUMNS, rows)
    for name, words in (("repairs", "would be repaired"), ("repaired", "repaired")):
        if name in report:
            output.listing(REPAIR_COLUMNS, report[name], empty=f"nothing {words}")


def _is_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def metered(
    report: ProgressReport, clock: Callable[[], float] = time.monotonic
) -> Callable[[str, int, int], None]:
    """Progress with the pace of each stage and how long it may still take.

    Args:
        report: Takes stage, done, total, seconds left and the pace in words.
        clock: Seconds.
    """
    began: dict[str, float] = {}

    def tell(stage: str, done: int, total: int) -> None:
        seconds = clock() - began.setdefault(stage, clock())
        if seconds < 1 or not done:
            report(stage, done, total)
            return
        report(
            stage, done, total, (total - done) * seconds / done, f"{done / seconds:.0f} a second"
        )

    return tell
