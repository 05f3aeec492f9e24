"""Whether a database can be believed: its pages, its references, its schema, its states.

SQLite's quick check reads every page, but a flipped bit in the text of the schema, or in a stored
state, passes it: the other questions find those.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from storage.states import STATE_SQL

Ask = Callable[[str], Iterable[Any]]
"""Runs a query and gives its rows."""


def fault_of(ask: Ask, schema: str | None) -> str | None:
    """What is wrong with a database, in words; None if it is sound.

    Args:
        ask: Of a connection to it.
        schema: The revision that it claims; the columns are compared for the present one only.
    """
    return next(_faults(ask, schema), None)


def _faults(ask: Ask, schema: str | None) -> Iterator[str]:
    yield from (str(row[0]) for row in ask("PRAGMA quick_check(1)") if row[0] != "ok")
    for row in ask("PRAGMA foreign_key_check"):
        yield f"row {row[1]} of {row[0]} points at a row of {row[2]} that is not there"
    if schema is None:
        return
    yield from _wrong_columns(ask, schema)
    for row in ask(f"SELECT id FROM frames WHERE state IS NOT ({STATE_SQL}) LIMIT 1"):
        yield f"the state of frame {row[0]} contradicts its row"


def _wrong_columns(ask: Ask, schema: str) -> Iterator[str]:
    from storage.models import Base
    from storage.reading import KNOWN_REVISION

    if schema != KNOWN_REVISION:
        return
    for table in Base.metadata.sorted_tables:
        there = {row[1] for row in ask(f"PRAGMA table_xinfo({table.name})")}
        lacking = {column.name for column in table.columns} - there
        if lacking:
            yield f"the table {table.name} lacks {', '.join(sorted(lacking))}"
