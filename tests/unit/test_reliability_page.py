"""The table of the sixty failure cases names tests that exist, and leaves no case out."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/reliability.md"
CASE = re.compile(r"^\| (\d+) \|.*\| ([^|]+) \| ([^|]+) \|$", re.MULTILINE)
TEST = re.compile(r"`(\w+)(?:::(\w+))?`")
FOLDERS = ("tests/unit", "tests/integration", "tests/end_to_end")


def cases() -> dict[int, tuple[str, str]]:
    """Number -> (where it is proved, result)."""
    found = CASE.findall(PAGE.read_text(encoding="utf-8"))
    assert len({number for number, _, _ in found}) == len(found), "a case stands there twice"
    return {int(number): (proof, result) for number, proof, result in found}


def file_of(name: str) -> Path:
    """A test file by its name without folder and ending."""
    found = [path for folder in FOLDERS for path in (ROOT / folder).glob(f"{name}.py")]
    assert len(found) == 1, f"{name}: {len(found)} files of that name"
    return found[0]


def test_all_sixty_stand_there() -> None:
    assert sorted(cases()) == list(range(1, 61))


def test_every_case_names_tests_that_exist() -> None:
    for number, (proof, result) in cases().items():
        tests = TEST.findall(proof)
        assert tests, f"case {number} names no test"
        for module, name in tests:
            text = file_of(module).read_text(encoding="utf-8")
            found = not name or re.search(rf"^def {name}\(", text, re.MULTILINE)
            assert found, f"case {number}: {name}"
        assert result.startswith("holds"), f"case {number}: {result}"
