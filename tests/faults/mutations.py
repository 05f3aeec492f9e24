"""Proves that each safety check is needed: takes them out one at a time and sees a test fail.

    python -m tests.faults.mutations [--only WORD ...] [--list] [--work FOLDER]

Works on a copy of the program, never on the checkout. For each mutation of
`tests/faults/mutation_list.py` the check is replaced in the copy, the test that watches over it is
run, and it has to fail; before that all those tests have to pass on the untouched copy. Prints a
table, and ends with 1 where a check can be taken out unnoticed.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.faults.mutation_list import MUTATIONS, Mutation

ROOT: Final = Path(__file__).parents[2]
COPIED: Final = ("cli", "daemon", "storage", "systemd", "tests", "docs")
FILES: Final = ("pyproject.toml", "README.md", "CHANGELOG.md", "Makefile")
LIMIT_SECONDS: Final = 300.0
ALL_PASSED, SOME_FAILED = 0, 1
"""Exit codes of pytest (docs.pytest.org, exit codes); every other one is an accident."""


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one mutation; `words` says why where it was not noticed."""

    mutation: Mutation
    noticed: bool
    seconds: float
    words: str = ""


def copy_program(place: Path) -> None:
    """Copy the checkout's program and tests."""
    ignored = shutil.ignore_patterns("__pycache__", "*.pyc")
    for name in COPIED:
        shutil.copytree(ROOT / name, place / name, ignore=ignored)
    for name in FILES:
        shutil.copy2(ROOT / name, place / name)


@contextmanager
def mutated(place: Path, mutation: Mutation) -> Iterator[None]:
    """The copy without the check, for as long as the block runs.

    Raises:
        LookupError: The text of the check is not there exactly once.
    """
    path = place / mutation.file
    original = path.read_text(encoding="utf-8")
    if original.count(mutation.check) != 1:
        count = original.count(mutation.check)
        raise LookupError(f"{mutation.name}: its text stands {count} times in {mutation.file}")
    path.write_text(original.replace(mutation.check, mutation.instead), encoding="utf-8")
    try:
        yield
    finally:
        path.write_text(original, encoding="utf-8")


def run_tests(place: Path, tests: Sequence[str]) -> tuple[int, str]:
    """Run tests of the copy; the exit code of pytest and the end of what it said."""
    environment = {**os.environ, "PYTHONPATH": str(place), "PYTHONDONTWRITEBYTECODE": "1"}
    environment.pop("PYTEST_ADDOPTS", None)
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests]
    try:
        done = subprocess.run(
            command,
            cwd=place,
            env=environment,
            capture_output=True,
            text=True,
            timeout=LIMIT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return SOME_FAILED, "it did not come to an end"
    lines = (done.stdout + done.stderr).strip().splitlines()
    return done.returncode, lines[-1] if lines else ""


def try_out(place: Path, mutation: Mutation) -> Result:
    """Take one check out and run its test."""
    start = time.monotonic()
    with mutated(place, mutation):
        code, words = run_tests(place, [mutation.test])
    noticed = code == SOME_FAILED
    return Result(mutation, noticed, time.monotonic() - start, "" if noticed else words)


def chosen(only: Sequence[str]) -> list[Mutation]:
    """The mutations whose name holds one of the words; all without a word."""
    return [m for m in MUTATIONS if not only or any(word in m.name for word in only)]


def survey(place: Path, mutations: Sequence[Mutation]) -> list[Result]:
    """Try each mutation in turn and say how it went."""
    results = []
    for number, mutation in enumerate(mutations, 1):
        print(f"{number}/{len(mutations)} {mutation.name}", file=sys.stderr, flush=True)
        results.append(try_out(place, mutation))
    return results


def table(results: Sequence[Result]) -> str:
    """The results as Markdown."""
    lines = ["| check taken out | noticed | by | seconds |", "| --- | --- | --- | ---: |"]
    for result in results:
        word = "yes" if result.noticed else f"NO ({result.words})"
        test = result.mutation.test.rpartition("/")[2]
        lines.append(f"| {result.mutation.name} | {word} | `{test}` | {result.seconds:.1f} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", nargs="+", default=[], metavar="WORD", help="of their names")
    parser.add_argument("--list", action="store_true", help="name them and stop")
    parser.add_argument("--work", type=Path, metavar="FOLDER", help="default: a temporary one")
    options = parser.parse_args(arguments)
    mutations = chosen(options.only)
    if options.list:
        print("\n".join(mutation.name for mutation in mutations))
        return 0
    with tempfile.TemporaryDirectory(prefix="stillwatch-mutations-") as scratch:
        place = Path(options.work or scratch) / "copy"
        copy_program(place)
        code, words = run_tests(place, sorted({mutation.test for mutation in mutations}))
        if code != ALL_PASSED:
            print(f"The tests do not pass on the untouched program: {words}", file=sys.stderr)
            return 1
        results = survey(place, mutations)
    print(table(results))
    missed = sum(not result.noticed for result in results)
    print(f"\n{len(results) - missed} of {len(results)} checks are watched over.")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
