"""The other tools on the same pairs: which quiet pairs they find, which new objects they merge.

Each tool says of each pair whether it takes the two pictures for duplicates, at its defaults, with
its own code, in its own environment:

- fastdup 2.54: cosine of its own features at least 0.96, the limit of its components;
- czkawka (binding 0.1.2): its hashes at most 5 apart, its "similar images" at small sizes;
- CleanVision 0.3.7: both in one set of `near_duplicates` or `exact_duplicates`;
- imagededup 0.3.3.post2: PHash, DHash at most 10 apart, the default of `find_duplicates`.

They see the two pictures; ours has learnt the camera's noise from the past pairs, as it does in
use, and never from the scored ones. Pairs: `make_pairs.py`, those marked `later`.
"""

import csv
import json
import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from daemon.settings import DedupSettings
from tests.benchmarks.change_pairs import read_cameras
from tests.benchmarks.rows import Row

BoolArray = NDArray[np.bool_]

QUIET: Final = ("quiet", "rquiet")
SCORED: Final = (*QUIET, "p1", "rchange")
FOUND_BY_USEFUL: Final = 0.75
"""A peer that finds fewer of the quiet pairs is no measure for what it merges."""
TIMES_FEWER: Final = 20
SECONDS: Final = 900
"""For one peer."""

_HEAD: Final = """\
import json, sys
pairs = json.load(open(sys.argv[1]))
files = sorted({name for pair in pairs for name in pair})
"""
_TAIL: Final = "\njson.dump(answer, open(sys.argv[2], 'w'))\n"
CODE: Final[Mapping[str, str]] = {
    "fastdup": """\
import fastdup, numpy
open('files.txt', 'w').write('\\n'.join(files))
code = fastdup.run('files.txt', work_dir='work', run_mode=1, num_threads=1)
assert code == 0, code
names, rows = fastdup.load_binary_feature('work/atrain_features.dat')
rows = rows / numpy.linalg.norm(rows, axis=1, keepdims=True)
at = {name: row for row, name in enumerate(names)}
answer = {'fastdup': [bool(rows[at[a]] @ rows[at[b]] >= 0.96) for a, b in pairs]}
""",
    "czkawka": """\
from pathlib import Path
from czkawka import ImageSimilarity
tool = ImageSimilarity()
hashes = {name: tool.hash_image(Path(name)) for name in files}
answer = {'czkawka': [tool.compare_hashes(hashes[a], hashes[b]) <= 5 for a, b in pairs]}
""",
    "cleanvision": """\
from cleanvision import Imagelab
kinds = ('near_duplicates', 'exact_duplicates')
lab = Imagelab(filepaths=files)
lab.find_issues({kind: {} for kind in kinds}, n_jobs=1, verbose=False)
sets = [set(one) for kind in kinds for one in lab.info[kind]['sets']]
answer = {'CleanVision': [any(a in one and b in one for one in sets) for a, b in pairs]}
""",
    "imagededup": """\
from unittest.mock import MagicMock
# its networks need a torchvision built for this very torch; the hashes need none of them
for name in ('imagededup.methods.cnn', 'imagededup.utils.models'):
    sys.modules[name] = MagicMock()
from imagededup.methods import DHash, PHash
answer = {}
for tool in (PHash(), DHash()):
    hashes = {name: tool.encode_image(name) for name in files}
    name = 'imagededup ' + type(tool).__name__
    answer[name] = [int(tool.hamming_distance(hashes[a], hashes[b])) <= 10 for a, b in pairs]
""",
}
"""Peer -> a script that answers for the pairs of its first argument into its second."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A line of pairs.csv. `a`, `b`: files below the folder of the pairs."""

    kind: str
    a: str
    b: str


def read_pairs(folder: Path) -> list[Pair]:
    """The pairs that are scored."""
    with (folder / "pairs.csv").open(newline="", encoding="utf-8") as stream:
        return [
            Pair(row["kind"], row["a"], row["b"])
            for row in csv.DictReader(stream)
            if row["split"] == "later" and row["kind"] in SCORED
        ]


def ask_peer(peer: str, python: Path, folder: Path, pairs: Sequence[Pair]) -> dict[str, BoolArray]:
    """What a tool says of the pairs, by the tool's name (imagededup has two).

    Raises:
        RuntimeError: It failed; the end of what it said is in the message.
    """
    with tempfile.TemporaryDirectory(prefix="peer-") as place:
        named = [
            (str((folder / pair.a).resolve()), str((folder / pair.b).resolve())) for pair in pairs
        ]
        question, answer = Path(place) / "pairs.json", Path(place) / "answer.json"
        question.write_text(json.dumps(named))
        environment = dict(os.environ) | {"SENTRY_OPT_OUT": "1", "HOME": place}
        done = subprocess.run(
            [str(python.absolute()), "-c", _HEAD + CODE[peer] + _TAIL, str(question), str(answer)],
            env=environment | {"OMP_NUM_THREADS": "1"},
            cwd=place,
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
        if done.returncode != 0:
            raise RuntimeError(f"{peer} failed: {done.stderr[-500:]}")
        told = json.loads(answer.read_text())
    return {name: np.array(said, dtype=bool) for name, said in told.items()}


def ask_ours(folder: Path, work: Path, pairs: Sequence[Pair]) -> BoolArray:
    """What the change test says of the pairs, with noise learnt from those marked `past`."""
    limit = DedupSettings().max_change
    said = {
        (pair.kind, pair.a, pair.b): camera.score(camera.pictures[pair.b], camera.pictures[pair.a])
        <= limit
        for camera in read_cameras(folder, work)
        for pair in camera.pairs
        if not pair.past and pair.kind in SCORED
    }
    return np.array([said[pair.kind, pair.a, pair.b] for pair in pairs])


@dataclass(frozen=True, slots=True)
class Figures:
    """Shares, 0 to 1, of the pairs that a tool takes for duplicates."""

    quiet: float
    jittered: float
    real: float
    objects: float
    changes: float

    @classmethod
    def of(cls, pairs: Sequence[Pair], said: BoolArray) -> "Figures":
        """Of what was said of these pairs, in their order."""
        kinds = np.array([pair.kind for pair in pairs])

        def share(*chosen: str) -> float:
            return float(said[np.isin(kinds, chosen)].mean())

        return cls(share(*QUIET), share("quiet"), share("rquiet"), share("p1"), share("rchange"))

    def text(self) -> str:
        """For a table."""
        return (
            f"quiet found {100 * self.jittered:.0f} / {100 * self.real:.0f} %; merged: 1 % objects "
            f"{100 * self.objects:.1f} %, real changes {100 * self.changes:.1f} %"
        )


def verdict_row(ours: Figures, peers: Mapping[str, Figures], objects: int) -> Row:
    """How many times fewer objects we merge than the best peer that is of use."""
    useful = {name: one for name, one in peers.items() if one.quiet >= FOUND_BY_USEFUL}
    name = "1 % objects merged, against peers that find 75 % of the quiet pairs"
    must = f"at least {TIMES_FEWER} times fewer"
    if not useful:
        return Row(name, "no peer finds so many, or none was run", must, None)
    best = min(useful, key=lambda peer: useful[peer].objects)
    measured = f"{100 * ours.objects:.1f} % of {objects}, {best} {100 * useful[best].objects:.1f} %"
    return Row(name, measured, must, TIMES_FEWER * ours.objects <= useful[best].objects)


def measure(pairs: Path, work: Path, python_of: Mapping[str, Path]) -> list[Row]:
    """A row for every tool, and how they compare."""
    chosen = read_pairs(pairs)
    ours = Figures.of(chosen, ask_ours(pairs, work, chosen))
    peers: dict[str, Figures] = {}
    rows = [Row("stillwatch, noise learnt from the past", ours.text(), "", None)]
    for peer in CODE:
        if peer not in python_of:
            rows.append(Row(peer, "not run: no interpreter given", "", None))
            continue
        told = ask_peer(peer, python_of[peer], pairs, chosen)
        figures = {name: Figures.of(chosen, said) for name, said in told.items()}
        peers |= figures
        rows += [Row(name, one.text(), "", None) for name, one in figures.items()]
    objects = sum(pair.kind == "p1" for pair in chosen)
    return [*rows, verdict_row(ours, peers, objects)]
