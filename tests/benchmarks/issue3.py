"""The one command for everything promised about clustering, identity and novelty.

    python -m tests.benchmarks.issue3 DEV_FOLDER [--quick] [--fastdup PYTHON]
        [--other FOLDER ...] [--only PART ...] [--work FOLDER] [--out docs/benchmarks.md]

DEV_FOLDER holds the labelled and the camera folders (real pictures, not in the repository).
PYTHON is the interpreter of an environment with `fastdup==2.54`; without it that peer is left out.
`--other` names planted sets of another generator (`clustering_scale`) to compare with.
Each part runs in a process of its own and prints its rows when it is done; with `--out` the
section "Clustering and novelty" of that page is rewritten. Ends with 1 where a row does not hold
or a part fails, with 2 where a part is missing.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Final

from tests.benchmarks.page_section import CLUSTERING
from tests.benchmarks.parts import Suite
from tests.benchmarks.run_all import machine

PARTS: Final = {
    "clustering_scale": "Clustering: speed, memory, agreement",
    "online_assignment": "Assignment on arrival",
    "identity_stability": "Identities across reclusters",
    "index_speed": "Index and similar",
    "ingest_during_recluster": "Ingest while a recluster runs",
    "clustering_real": "Real data: clustering, defaults only",
    "novelty_real": "Real data: novelty of scenes",
    "places_real": "Real data: novelty of places",
}
"""Module below `tests.benchmarks` -> title, see `parts`. They are offered `dev`, `work`, `quick`,
`fastdup` and `other`."""
LIBRARIES: Final = ("numpy", "scipy", "faiss-cpu", "hdbscan", "scikit-learn", "ai-edge-litert")
INTRODUCTION: Final = """\
## Clustering and novelty

Written by one command, which measures each part in a process of its own:

```console
$ python -m tests.benchmarks.issue3 DEV_FOLDER --fastdup PYTHON --out docs/benchmarks.md
```"""


@dataclass(frozen=True, slots=True)
class Options:
    """The command line."""

    dev: Path
    quick: bool
    fastdup: Path | None
    other: Sequence[Path]
    parts: Sequence[str]
    work: Path | None
    out: Path | None


def read_options(arguments: Sequence[str] | None) -> Options:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("dev", type=Path, metavar="DEV_FOLDER")
    parser.add_argument("--quick", action="store_true", help="smaller sizes, for a first look")
    parser.add_argument("--fastdup", type=Path, metavar="PYTHON")
    parser.add_argument("--other", type=Path, nargs="+", default=[], metavar="FOLDER")
    parser.add_argument("--only", choices=PARTS, nargs="+", default=list(PARTS), metavar="PART")
    parser.add_argument("--work", type=Path, metavar="FOLDER", help="kept, with the embeddings")
    parser.add_argument("--out", type=Path, metavar="FILE.md")
    chosen = parser.parse_args(arguments)
    return Options(
        chosen.dev,
        chosen.quick,
        chosen.fastdup,
        chosen.other,
        chosen.only,
        chosen.work,
        chosen.out,
    )


def header(options: Options) -> str:
    """When, where, on what and with which versions."""
    libraries = ", ".join(f"{name} {version(name)}" for name in LIBRARIES)
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    peers = "with fastdup 2.54" if options.fastdup else "fastdup not run"
    size = "; quick: smaller sizes than promised" if options.quick else ""
    return (
        f"Measured {datetime.now(UTC):%Y-%m-%d %H:%M} UTC on {machine()}; {libraries}; {peers}; "
        f"load at the start {load}{size}."
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; the exit code."""
    options = read_options(arguments)
    suite = Suite(
        titles={part: PARTS[part] for part in options.parts},
        markers=CLUSTERING,
        head=f"{INTRODUCTION}\n\n{header(options)}",
        values={
            "dev": options.dev,
            "quick": options.quick,
            "fastdup": options.fastdup,
            "other": options.other,
        },
        work=options.work,
    )
    return suite.run(options.out)


if __name__ == "__main__":
    sys.exit(main())
