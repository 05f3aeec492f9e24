"""What keeps the daemon small and its network fast: few imports, decoders that give way."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from daemon.ingest.decode_process import NICE
from daemon.ingest.decoder import DecodePool
from daemon.settings import IngestSettings

DECODERS = {"PIL", "simplejpeg", "pillow_heif"}
OF_CHILDREN = {"tensorflow", "keras", "sklearn", "hdbscan", "annoy"}


def test_the_daemon_imports_no_picture_decoder_and_nothing_of_its_children() -> None:
    code = "import sys, daemon.service; print(*{name.split('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    imported = set(done.stdout.split())
    assert {"daemon", "sqlalchemy"} <= imported  # the list is one of imports
    assert imported & (DECODERS | OF_CHILDREN) == set()


def decoders() -> list[int]:
    """Process ids of this process's decoding children."""
    found: list[int] = []
    for thread in Path("/proc/self/task").iterdir():
        for child in (thread / "children").read_text().split():
            try:
                command = Path(f"/proc/{child}/cmdline").read_bytes()
            except FileNotFoundError:
                continue
            if b"daemon.ingest.decode_child" in command:
                found.append(int(child))
    return found


def test_decoders_start_before_the_first_file_with_a_lower_priority(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    pool = DecodePool(
        IngestSettings(decode_children=2),
        (224, 224),
        {1: os.fsencode(tmp_path)},
        lambda result: pytest.fail(f"nothing was handed in, yet {result} came out"),
    )
    request.addfinalizer(pool.close)
    before = set(decoders())
    pool.start()
    lower = min(19, os.getpriority(os.PRIO_PROCESS, 0) + NICE)
    deadline = time.monotonic() + 20
    priorities: list[int] = []
    while priorities != [lower, lower]:
        assert time.monotonic() < deadline, f"priorities {priorities}, not {lower} twice"
        children = set(decoders()) - before
        priorities = [os.getpriority(os.PRIO_PROCESS, child) for child in children]
        time.sleep(0.01)
