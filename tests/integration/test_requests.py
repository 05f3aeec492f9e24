"""What an earlier daemon left undone is answered, not done."""

from pathlib import Path

from sqlalchemy import Connection, insert, select

from storage import requests
from storage.engine import Database
from storage.models import Request


def ask(connection: Connection, state: str, created_at: float) -> int:
    statement = insert(Request).values(
        kind="dedup_apply", arguments={}, actor="ann", state=state, created_at=created_at
    )
    return int(connection.execute(statement.returning(Request.id)).scalar_one())


def test_only_what_was_asked_since_the_start_is_still_done(tmp_path: Path) -> None:
    db = Database(tmp_path)
    try:
        with db.write() as connection:
            running = ask(connection, "running", 10.0)
            stale = ask(connection, "queued", 10.0)
            fresh = ask(connection, "queued", 30.0)
            requests.fail_interrupted(connection, 21.0, asked_before=20.0)
        with db.read() as connection:
            assert [row.id for row in requests.queued(connection)] == [fresh]
            found = connection.execute(
                select(Request.id, Request.state, Request.exit_code, Request.result)
            ).all()
        answers = {row.id: row for row in found}
        for number in (running, stale):
            assert (answers[number].state, answers[number].exit_code) == ("done", 1)
            assert "stopped" in answers[number].result["error"]["summary"]
    finally:
        db.close()
