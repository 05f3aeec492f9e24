"""Single values of the state folder: heartbeat, encoder, generations."""

import json
from typing import Any

from sqlalchemy import Connection, select
from sqlalchemy.dialects.sqlite import insert

from storage.models import Meta


def put(connection: Connection, key: str, value: Any) -> None:
    """Store a JSON value under a key."""
    text = json.dumps(value)
    connection.execute(
        insert(Meta)
        .values(key=key, value=text)
        .on_conflict_do_update(index_elements=[Meta.key], set_={"value": text})
    )


def get(connection: Connection, key: str, default: Any = None) -> Any:
    """The JSON value of a key, or the default."""
    text = connection.execute(select(Meta.value).where(Meta.key == key)).scalar()
    return default if text is None else json.loads(text)
