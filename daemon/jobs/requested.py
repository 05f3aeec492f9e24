"""The work that the CLI asks a running daemon for, one row of `requests` at a time.

When a request begins and on which thread is the scheduler's business (daemon/jobs/scheduler.py);
what it does is its handler's (daemon/jobs/handlers.py).
"""

import time
from typing import Any, Final

from daemon.jobs.child import Progress
from daemon.jobs.handlers import Call, handle
from daemon.jobs.workshop import Workshop
from storage import requests

HEAVY_KINDS: Final = frozenset(
    {"recluster", "undo", "prune", "repair", "encoder_switch", "encoder_forget"}
    | {"dedup_plan", "dedup_apply", "dedup_keep", "dedup_apart", "dedup_keeper"}
)
"""Requests that wait for the heavy job under way, and it for them."""
PROGRESS_SECONDS: Final = 0.3
"""Least time between two notes of the progress."""


def serve_request(workshop: Workshop, row: Any) -> None:
    """Do one request and note in its row what came of it, whatever that is.

    Args:
        workshop: What the job works with.
        row: Of `requests.queued`; noted as started by now.

    Raises:
        Exception: As the handler; the row then tells of an internal error, exit code 1.
    """
    progress = _progress_of(workshop, row.id)
    exit_code, result = 1, _internal_error()
    try:
        outcome = handle(Call(workshop, row.arguments, progress, row.actor), row.kind)
        exit_code, result = outcome.exit_code, outcome.result
    finally:
        with workshop.db.write() as connection:
            requests.finish(connection, row.id, workshop.wall(), exit_code, result)


def _progress_of(workshop: Workshop, request_id: int) -> Progress:
    """Notes the progress in the row, but not at every step."""
    shown = -1.0

    def progress(stage: str, done: int, total: int) -> None:
        nonlocal shown
        now = time.monotonic()
        if now - shown >= PROGRESS_SECONDS:
            shown = now
            with workshop.db.write() as connection:
                requests.set_progress(connection, request_id, stage, done, total)

    return progress


def _internal_error() -> dict[str, Any]:
    return {
        "error": {
            "code": "failed",
            "summary": "An internal error; the daemon's log has the details.",
            "hint": "Nothing else is affected.",
            "path": None,
        }
    }
