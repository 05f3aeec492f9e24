"""The list of safety checks fits the program, and taking some of them out is noticed.

All of them are tried by `python -m tests.faults.mutations`.
"""

import re
from pathlib import Path

import pytest

from tests.faults.mutation_list import MUTATIONS, Mutation
from tests.faults.mutations import ROOT, copy_program, try_out

LEAST = 25
QUICK = (
    "temporary names of uploads are no candidates",
    "weights are arrays only",
    "a rename never replaces",
)


def test_the_list_is_long_and_names_everything_once() -> None:
    assert len(MUTATIONS) >= LEAST
    assert len({mutation.name for mutation in MUTATIONS}) == len(MUTATIONS)


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_check_and_test_are_there(mutation: Mutation) -> None:
    text = (ROOT / mutation.file).read_text(encoding="utf-8")
    assert text.count(mutation.check) == 1
    assert mutation.instead != mutation.check
    if mutation.file.endswith(".py"):  # a program that does not start proves nothing
        compile(text.replace(mutation.check, mutation.instead), mutation.file, "exec")
    file, _, name = mutation.test.partition("::")
    tests = (ROOT / file).read_text(encoding="utf-8")
    plain = name.partition("[")[0]
    assert not plain or re.search(rf"^def {plain}\(", tests, re.MULTILINE)


def test_what_is_taken_out_is_noticed(tmp_path: Path) -> None:
    copy_program(tmp_path)
    chosen = [mutation for mutation in MUTATIONS if mutation.name in QUICK]
    assert len(chosen) == len(QUICK)
    results = {mutation.name: try_out(tmp_path, mutation) for mutation in chosen}
    assert {name: result.words for name, result in results.items() if not result.noticed} == {}


def test_a_harmless_change_is_not_taken_for_noticed(tmp_path: Path) -> None:
    copy_program(tmp_path)
    harmless = Mutation(
        "nothing",
        "daemon/ingest/candidates.py",
        '"""Which files below a camera\'s folder are candidates',
        '"""Which files under a camera\'s folder are candidates',
        "tests/unit/test_candidates.py",
    )
    assert not try_out(tmp_path, harmless).noticed
