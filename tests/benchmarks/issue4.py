"""The one command for everything promised about change-safe dedup.

    python -m tests.benchmarks.issue4 DEV_FOLDER --pairs FOLDER --tools FOLDER [--quick]
        [--peer NAME=PYTHON ...] [--seconds 300] [--only PART ...] [--work FOLDER]
        [--out docs/benchmarks.md]

DEV_FOLDER holds the camera folders (real pictures, not in the repository), `--pairs` the labelled
pairs made of them, `--tools` the programs that put objects into sequences. `--peer` names the
interpreter of an environment with one peer (fastdup, czkawka, cleanvision, imagededup); a peer
without one is left out. `--seconds` is the length of the live run. Each part runs in a process of
its own and prints its rows when it is done; with `--out` the section "Change-safe dedup" of that
page is rewritten. Ends with 1 where a row does not hold or a part fails, with 2 where a part is
missing.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import starmap
from pathlib import Path
from typing import Final

from tests.benchmarks.page_section import DEDUP
from tests.benchmarks.parts import Suite
from tests.benchmarks.run_all import machine

PARTS: Final = {
    "change_pairs": "The change test, out of time",
    "dedup_streaming": "Streaming: quiet removed, changes merged",
    "disturbances": "Disturbances, simulated on real frames",
    "archive_copies": "Archives: copies found",
    "dedup_peers": "Peers on the same frames",
    "dedup_storage": "Database size and planning",
    "dedup_backlog": "Judging beside the ingest",
    "simulated_week": "A week, live, killed 50 times, then undone",
}
"""Module below `tests.benchmarks` -> title, see `parts`. They are offered `dev`, `pairs`, `tools`,
`work`, `quick`, `seconds` and `python_of` (peer -> its interpreter)."""
LIBRARIES: Final = ("numpy", "opencv-python-headless", "faiss-cpu", "ai-edge-litert")
PEERS: Final = ("fastdup", "czkawka", "cleanvision", "imagededup")
INTRODUCTION: Final = r"""## Change-safe dedup

Written by one command, which measures each part in a process of its own:

```console
$ python -m tests.benchmarks.issue4 DEV_FOLDER --pairs FOLDER --tools FOLDER \
      --out docs/benchmarks.md
```"""


@dataclass(frozen=True, slots=True)
class Options:
    """The command line."""

    dev: Path
    pairs: Path
    tools: Path
    quick: bool
    python_of: Mapping[str, Path]
    seconds: float
    parts: Sequence[str]
    work: Path | None
    out: Path | None


def read_options(arguments: Sequence[str] | None) -> Options:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("dev", type=Path, metavar="DEV_FOLDER")
    parser.add_argument("--pairs", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--tools", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--quick", action="store_true", help="smaller sizes, for a first look")
    parser.add_argument("--peer", type=_peer, action="append", default=[], metavar="NAME=PYTHON")
    parser.add_argument("--seconds", type=float, default=300.0, help="of the live run")
    parser.add_argument("--only", choices=PARTS, nargs="+", default=list(PARTS), metavar="PART")
    parser.add_argument("--work", type=Path, metavar="FOLDER", help="kept, with what is cached")
    parser.add_argument("--out", type=Path, metavar="FILE.md")
    chosen = parser.parse_args(arguments)
    return Options(
        chosen.dev,
        chosen.pairs,
        chosen.tools,
        chosen.quick,
        dict(chosen.peer),
        chosen.seconds,
        chosen.only,
        chosen.work,
        chosen.out,
    )


def _peer(text: str) -> tuple[str, Path]:
    name, _, interpreter = text.partition("=")
    if name not in PEERS or not interpreter:
        raise argparse.ArgumentTypeError(f"{text} is not NAME=PYTHON with {', '.join(PEERS)}")
    return name, Path(interpreter)


def peer_version(name: str, interpreter: Path) -> str:
    """A peer with the version that its environment holds."""
    ask = f"from importlib.metadata import version; print(version({name!r}))"
    answer = subprocess.run(
        [interpreter, "-c", ask], capture_output=True, text=True, timeout=60, check=False
    )
    return f"{name} {answer.stdout.strip() or '(version unknown)'}"


def header(options: Options) -> str:
    """When, where, on what and with which versions."""
    libraries = ", ".join(f"{name} {version(name)}" for name in LIBRARIES)
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    peers = ", ".join(starmap(peer_version, options.python_of.items())) or "none"
    size = "; quick: smaller sizes than promised" if options.quick else ""
    return (
        f"Measured {datetime.now(UTC):%Y-%m-%d %H:%M} UTC on {machine()}; {libraries}; peers run: "
        f"{peers}; load at the start {load}{size}."
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; the exit code."""
    options = read_options(arguments)
    suite = Suite(
        titles={part: PARTS[part] for part in options.parts},
        markers=DEDUP,
        head=f"{INTRODUCTION}\n\n{header(options)}",
        values={
            "dev": options.dev,
            "pairs": options.pairs,
            "tools": options.tools,
            "quick": options.quick,
            "seconds": options.seconds,
            "python_of": options.python_of,
        },
        work=options.work,
    )
    return suite.run(options.out)


if __name__ == "__main__":
    sys.exit(main())
