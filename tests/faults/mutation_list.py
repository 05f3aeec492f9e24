"""The safety checks that `tests.faults.mutations` takes out, each with the test that notices."""

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

LIST: Final = Path(__file__).with_name("mutations.toml")


@dataclass(frozen=True, slots=True)
class Mutation:
    """A check, how it looks in its file, what stands there without it, and the test that fails.

    `check` must stand in `file` exactly once. `test` is a node id of pytest, quick by itself.
    """

    name: str
    file: str
    check: str
    instead: str
    test: str


MUTATIONS: Final = tuple(
    Mutation(**entry) for entry in tomllib.loads(LIST.read_text(encoding="utf-8"))["mutation"]
)
