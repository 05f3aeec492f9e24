"""A short run of the fuzzer of decoding processes; the long one is tests/faults/fuzz_decode.py."""

import os
from pathlib import Path

import pytest

from tests.faults.fuzz_decode import Fuzzer

FILES = int(os.environ.get("STILLWATCH_FUZZ_FILES", "1500"))


@pytest.mark.parametrize("seed", [7])
def test_no_mutated_picture_kills_its_process(tmp_path: Path, seed: int) -> None:
    fuzzer = Fuzzer(seed, tmp_path / "found")
    try:
        for _ in range(FILES):
            fuzzer.one()
    finally:
        fuzzer.close()
    assert fuzzer.crashes == 0, sorted((tmp_path / "found").iterdir())
    assert min(fuzzer.outcomes["taken"], fuzzer.outcomes["refused"]) > FILES / 10
    assert len(fuzzer.reasons) > 40
