"""Pictures mutated towards code not reached before: `python -m tests.faults.fuzz_coverage`.

atheris does it in one process and without confinement, as coverage asks for; so a crash ends the
run, and the file is kept. atheris is not among the locked packages: docs/maintaining.md says how to
have it.
"""

import argparse
import importlib
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

PIXELS = 4_000_000
LONGEST_BYTES = 60_000


def write_corpus(folder: Path) -> None:
    """Every file of tests/faults/decode_corpus.py, as atheris wants them."""
    from tests.faults.decode_corpus import bombs, foreign, samples

    folder.mkdir(parents=True, exist_ok=True)
    for kind, files in (("taken", samples()), ("foreign", foreign()), ("bomb", bombs())):
        for name, data in files.items():
            if len(data) <= LONGEST_BYTES:
                (folder / f"{kind}-{name}").write_bytes(data)


def fuzz(atheris: Any, folder: Path, findings: Path, seconds: int, seed: int) -> None:
    """Run until the time is over; never returns."""
    with atheris.instrument_imports(include=["PIL", "daemon.ingest"]):
        from daemon.ingest.picture import UnusablePictureError, decode

    def one(data: bytes) -> None:
        try:
            decode(data, wanted=(64, 64), limit=PIXELS)
        except (UnusablePictureError, MemoryError):
            return

    options = [f"-max_total_time={seconds}", f"-seed={seed}", f"-max_len={LONGEST_BYTES}"]
    options += ["-rss_limit_mb=2048", "-timeout=20", f"-artifact_prefix={findings}/"]
    atheris.Setup([sys.argv[0], *options, str(folder)], one)
    atheris.Fuzz()


def main(arguments: Sequence[str] | None = None) -> int:
    """Fuzz for a while; other than 0 when a file killed the process."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults.fuzz_coverage", description=__doc__
    )
    parser.add_argument("--seconds", type=int, default=300, help="how long (300)")
    parser.add_argument("--seed", type=int, default=1, help="of the mutations (1)")
    parser.add_argument("--folder", type=Path, help="corpus that grows, kept between runs")
    chosen = parser.parse_args(arguments)
    try:
        atheris = importlib.import_module("atheris")
    except ImportError:
        print("atheris is not installed: see docs/maintaining.md", file=sys.stderr)
        return 2
    folder = chosen.folder or Path(tempfile.mkdtemp(prefix="stillwatch-atheris-"))
    write_corpus(folder / "corpus")
    (folder / "found").mkdir(exist_ok=True)
    fuzz(atheris, folder / "corpus", folder / "found", chosen.seconds, chosen.seed)
    return 0


if __name__ == "__main__":
    sys.exit(main())
