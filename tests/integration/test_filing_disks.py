"""Filing, trash and prune on disks that are full, read-only, unreadable or not honest."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.injection import Faults, missing
from tests.faults.symlink_race import compiled
from tests.tools.filing_disks import SCENARIOS

ROOT = Path(__file__).parents[2]


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="mounts and immutable files need root")
@pytest.mark.skipif(missing() is not None, reason=str(missing()))
@pytest.mark.parametrize("scenario", list(SCENARIOS))
def test_nothing_is_lost_and_the_rest_goes_on(tmp_path: Path, scenario: str) -> None:
    base = tmp_path / "base"
    base.mkdir()
    with Faults(tmp_path / "faults.page") as faults:
        environment = faults.environment()
        if scenario == "folding-names":
            library = compiled(ROOT / "tests/faults/casefold.c", "-shared", "-fPIC")
            own_folder = base / scenario / "cam" / "stillwatch"
            environment = {"LD_PRELOAD": str(library), "STILLWATCH_FOLDED": str(own_folder)}
        done = subprocess.run(
            [sys.executable, "-m", "tests.tools.filing_disks", str(base), scenario],
            cwd=ROOT,
            env=os.environ | environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
    assert done.returncode == 0, done.stderr
