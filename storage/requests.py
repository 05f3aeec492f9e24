"""Repository of requests: what the command line asked the daemon for."""

from typing import Any

from sqlalchemy import Connection, select, update

from storage.models import Request


def queued(connection: Connection) -> list[Any]:
    """Requests that wait, oldest first."""
    return list(
        connection.execute(
            select(Request.id, Request.kind, Request.arguments, Request.actor)
            .where(Request.state == "queued")
            .order_by(Request.id)
        ).all()
    )


def start(connection: Connection, request_id: int, at: float) -> None:
    """The daemon has taken the request."""
    connection.execute(
        update(Request).where(Request.id == request_id).values(state="running", started_at=at)
    )


def set_progress(
    connection: Connection, request_id: int, stage: str, done: int, total: int
) -> None:
    """Tell the waiting command how far the job is."""
    connection.execute(
        update(Request)
        .where(Request.id == request_id)
        .values(progress={"stage": stage, "done": done, "total": total})
    )


def finish(
    connection: Connection, request_id: int, at: float, exit_code: int, result: dict[str, Any]
) -> None:
    """The job has ended with this exit code and result."""
    connection.execute(
        update(Request)
        .where(Request.id == request_id)
        .values(state="done", finished_at=at, exit_code=exit_code, result=result)
    )


def fail_interrupted(connection: Connection, at: float, *, asked_before: float) -> None:
    """Answer what an earlier daemon left undone, so that nobody waits for it.

    What was only queued is not done either: files must not move long after somebody gave up.
    """
    error = {
        "code": "failed",
        "summary": "The daemon stopped before this was done.",
        "hint": "Ask again; half-done file moves were finished or taken back at its start.",
        "path": None,
    }
    connection.execute(
        update(Request)
        .where(
            (Request.state == "running")
            | ((Request.state == "queued") & (Request.created_at < asked_before))
        )
        .values(state="done", finished_at=at, exit_code=1, result={"error": error})
    )
