"""What `verify` finds: a rule that does not hold, in words for the owner and for `--repair`."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, Literal

RULES: Final = ("I1", "I2", "I3", "I4", "I5", "I6", "I7")
"""guides: content, rows, places, vectors, database, unfinished work, nothing outside."""
EXTRA: Final = ("offline", "unknown", "unreadable")
"""What is told besides: absent cameras, foreign files in our folder, what could not be looked at.
Only the last makes the answer "no"."""

Kind = Literal[
    "",
    "file_gone",
    "file_changed",
    "no_row",
    "strayed",
    "intent",
    "run",
    "keeper",
    "vector",
    "no_vector",
    "signature",
    "index",
    "neighbours",
    "reindex",
]
"""What `--repair` can do something about; empty: nothing but what the text says.

`file_gone`: of a row on disk. `file_changed`: other bytes than its row's. `no_row`: a candidate.
`strayed`: the content of a frame whose file is not at its path. `keeper`: of a duplicate, gone.
"""

Progress = Callable[[str, int, int], None]
"""Told stage, done, total."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """One rule that does not hold. `number`: of the frame, journal row or run that `kind` is of."""

    rule: str
    text: str
    kind: Kind = ""
    number: int = 0
    camera_id: int = 0
    path: bytes = b""
    space_id: int = 0


def as_report(violations: Iterable[Violation]) -> dict[str, Any]:
    """`ok`, `I1` to `I7` and `EXTRA`: lists of sentences, each once, in the order found."""
    found: dict[str, dict[str, None]] = {rule: {} for rule in (*RULES, *EXTRA)}
    for violation in violations:
        found[violation.rule][violation.text] = None
    told = {rule: list(texts) for rule, texts in found.items()}
    return {"ok": not any(told[rule] for rule in (*RULES, "unreadable"))} | told
