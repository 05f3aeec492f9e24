"""Jobs: asked of the daemon where one runs, done here where none does.

The one row in `requests` is all that the command line ever writes into the database.
"""

import getpass
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cli.context import Context
from cli.output import ProgressReport
from storage.database_file import DATABASE_NAME, sqlite_driver
from storage.errors import LockedError, StillwatchError
from storage.lock import holder
from storage.names import REQUEST, format_id
from storage.overview import job_under_way
from storage.reading import Reader

POLL_SECONDS: Final = 0.1
BUSY_TIMEOUT_SECONDS: Final = 60


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a job: the JSON of its kind, and the exit code."""

    result: dict[str, Any]
    exit_code: int


def ask(context: Context, kind: str, arguments: dict[str, Any], *, wait: bool = True) -> Answer:
    """Have a job done, and wait for it with progress on stderr.

    Args:
        context: The invocation.
        kind: A kind of docs/architecture.md, "Requests".
        arguments: Its arguments.
        wait: False leaves the job to the daemon and answers `{"request": id}`; where no daemon
            runs the job is done here all the same.

    Raises:
        NoStateError: There is no database yet.
        LockedError: A process took the lock that answers no requests.
        StillwatchError: The daemon ended before the answer, or the job's own error.
    """
    state_dir = context.state_dir
    Reader(state_dir).close()
    actor = _login_name()
    if holder(state_dir) is None:
        try:
            return _do_here(context, kind, arguments, actor)
        except LockedError:
            # A daemon that started in this very moment can be asked instead.
            if holder(state_dir) is None:
                raise
    number = _insert(state_dir, kind, arguments, actor)
    if not wait:
        return Answer({"request": format_id(REQUEST, number)}, 0)
    with context.output.progress() as report:
        return _wait(state_dir, number, report)


def _do_here(context: Context, kind: str, arguments: dict[str, Any], actor: str) -> Answer:
    from daemon.jobs.local import perform

    with context.output.progress() as report:
        outcome = perform(context.state_dir, context.config, kind, arguments, report, actor)
    return _answer(outcome.result, outcome.exit_code)


def _login_name() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user id without a name, as in a container
        return "unknown"


def _connect(state_dir: Path) -> Any:
    connection = sqlite_driver().connect(
        (state_dir / DATABASE_NAME).absolute().as_uri() + "?mode=rw",
        uri=True,
        timeout=BUSY_TIMEOUT_SECONDS,
        isolation_level=None,
    )
    connection.execute("PRAGMA synchronous=FULL")
    return connection


def _insert(state_dir: Path, kind: str, arguments: dict[str, Any], actor: str) -> int:
    connection = _connect(state_dir)
    try:
        cursor = connection.execute(
            "INSERT INTO requests (kind, arguments, actor, state, created_at)"
            " VALUES (?, ?, ?, 'queued', ?)",
            (kind, json.dumps(arguments), actor, time.time()),
        )
        return int(cursor.lastrowid)
    except sqlite_driver().OperationalError as exc:
        raise StillwatchError(
            f"The daemon cannot be asked: {exc}.",
            hint="The state folder must be writable for this user (group of the state folder).",
            path=str(state_dir),
        ) from exc
    finally:
        connection.close()


def _wait(state_dir: Path, number: int, report: ProgressReport) -> Answer:
    while True:
        # Asked before the row is read: an answer written just before the daemon ended counts.
        alone = holder(state_dir) is None
        with Reader(state_dir) as reader:
            row = reader.one("SELECT * FROM requests WHERE id = ?", (number,))
            job = job_under_way(reader, time.time())
        if row["state"] == "done":
            return _answer(json.loads(row["result"] or "null") or {}, int(row["exit_code"] or 0))
        if alone:
            raise StillwatchError(
                f"The daemon ended before it answered request {format_id(REQUEST, number)}.",
                hint="`stillwatch status` shows whether it runs again; then ask again.",
            )
        progress = json.loads(row["progress"] or "null")
        if progress:
            left = None if job is None or job["stage"] != progress["stage"] else job["seconds_left"]
            report(progress["stage"], progress["done"], progress["total"], left)
        else:
            report("waiting for the daemon", 0, 0)
        time.sleep(POLL_SECONDS)


def _answer(result: dict[str, Any], exit_code: int) -> Answer:
    told = result.get("error")
    if told is None:
        return Answer(result, exit_code)
    error = StillwatchError(told["summary"], hint=told["hint"], path=told["path"])
    error.code, error.exit_code = told["code"], exit_code
    raise error
