"""The everyday commands start fast because they import nothing heavy."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cli_state import ROOT, make_state

FORBIDDEN = {
    *("tensorflow", "sklearn", "hdbscan", "faiss", "sqlalchemy", "pydantic", "alembic", "numpy"),
    *("scipy", "cv2", "PIL", "annoy"),
}
LIMIT_SECONDS = 0.35
COMMANDS = (
    ["--help"],
    ["status"],
    ["frames"],
    ["clusters"],
    ["novel"],
    ["why", "f2"],
    ["clusters", "history"],
)


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fast")
    make_state(folder / "state", folder / "yard")
    return folder / "state"


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_nothing_heavy_is_imported(state: Path, arguments: list[str]) -> None:
    command = [sys.executable, "-X", "importtime", "-m", "cli.main", *arguments]
    environment = dict(os.environ) | {"STILLWATCH_STATE": str(state)}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    imported = {
        match[1] for match in re.finditer(r"^import time:.*\|\s+([\w.]+)$", done.stderr, re.M)
    }
    assert "cli.status" in imported  # the list is one of imports
    assert {name for name in imported if name.split(".")[0] in FORBIDDEN} == set()


@pytest.mark.alone
@pytest.mark.parametrize("arguments", COMMANDS[:2], ids=" ".join)
def test_the_start_is_fast(state: Path, arguments: list[str]) -> None:
    command = [sys.executable, "-m", "cli.main", *arguments]
    environment = dict(os.environ) | {"STILLWATCH_STATE": str(state)}
    best = float("inf")
    for _ in range(7):
        start = time.perf_counter()
        subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, check=True)
        best = min(best, time.perf_counter() - start)
    assert best <= LIMIT_SECONDS
