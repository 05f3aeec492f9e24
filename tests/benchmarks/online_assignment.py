"""Online assignment on planted frames: the held-out fifth, a tenth of the clusters unseen.

Four fifths of the bursts, without the unseen clusters, are clustered; then the frames of the other
bursts arrive. Judged one by one against what was known (the protocol of the table), and as a
stream that learns, in which a fifth of the frames is new: there an unseen scene counts as found
while its frames are novel or resemble those that were, and are in no cluster of old.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from daemon.clustering.camera_judge import CameraJudge, Sight
from daemon.clustering.references import ReferenceFrames
from daemon.messages import FloatArray
from daemon.settings import Settings
from tests.benchmarks.planted import SIMILAR, UNEVEN, planted_set
from tests.benchmarks.rows import Row
from tests.benchmarks.stream import Known, stream

BLOCK: Final = 64
SEEDS: Final = (0, 1, 2, 3)
RATES: Final = (0.01, 0.02, 0.05)
SETS: Final = (("similar", SIMILAR, 50_000, 0.01), ("uneven", UNEVEN, 20_000, 0.03))
"""Name, spread, frames, and what the false novels may exceed the promise by."""

Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Draw:
    """One planted set, its clustering, and the frames that arrive.

    `inside`: of a cluster that is known; `unseen`: of one that is not. `home`: the found cluster
    that holds most of the frame's planted cluster, -1 where that is noise.
    """

    known: Known
    vectors: FloatArray
    inside: Flags
    unseen: Flags
    home: NDArray[np.int64]


def measure(work: Path, quick: bool) -> list[Row]:
    """The rows of the table; several draws together, as a burst weighs as many as its frames."""
    rows: list[Row] = []
    for name, spread, count, slack in SETS:
        seeds, size = (SEEDS[:1], 20_000) if quick else (SEEDS, count)
        draws = [_draw(work, size, seed, spread) for seed in seeds]
        rows += [_row(work, draws, name, rate, slack, size) for rate in RATES]
        rows.append(_stream_row(work, draws[0], name))
    return rows


def _draw(work: Path, count: int, seed: int, spread: float) -> Draw:
    planted = planted_set(work, count, seed=seed, spread=spread)
    rng = np.random.default_rng(seed + 1)
    bursts = rng.permutation(np.unique(planted.bursts))
    late = np.isin(planted.bursts, bursts[: len(bursts) // 5])
    names = np.unique(planted.labels[planted.labels >= 0])
    absent = rng.choice(names, len(names) // 10, replace=False)
    unseen = np.isin(planted.labels, absent)
    early = np.flatnonzero(~late & ~unseen)
    known = Known.of(planted.vectors[early].astype(np.float32))
    found = known.clustering.labels
    home = {
        int(name): int(np.bincount(found[planted.labels[early] == name] + 1).argmax()) - 1
        for name in np.setdiff1d(names, absent)
        if (planted.labels[early] == name).any()
    }
    order = np.argsort(rng.permutation(planted.bursts.max() + 1)[planted.bursts], kind="stable")
    arriving = order[late[order]]
    labels = planted.labels[arriving]
    return Draw(
        known=known,
        vectors=planted.vectors[arriving].astype(np.float32),
        inside=(labels >= 0) & ~unseen[arriving],
        unseen=unseen[arriving],
        home=np.array([home.get(int(label), -1) for label in labels], dtype=np.int64),
    )


def _one_by_one(draw: Draw, work: Path, rate: float) -> tuple[Flags, NDArray[np.int64]]:
    """Novel or not, and the cluster (-1 for none), each frame as the next one to arrive."""
    index, references, camera = draw.known.parts(work)
    frames = ReferenceFrames(index, references)
    judge = CameraJudge(camera, rate, references.scores)
    collapse = Settings().clustering.collapse_distance
    novel = np.zeros(len(draw.vectors), dtype=np.bool_)
    cluster = np.full(len(draw.vectors), -1, dtype=np.int64)
    for start in range(0, len(draw.vectors), BLOCK):
        block = draw.vectors[start : start + BLOCK]
        ids, distances = frames.search(block)
        for row, vector in enumerate(block):
            near = frames.nearest(vector, ids[row], distances[row])
            if near is None:
                continue
            sight = Sight(near.distance, near.scale, burst=near.distance <= collapse)
            ruling = judge.rule(sight)
            novel[start + row] = ruling.novelty is not None
            if near.distance <= near.scale * ruling.usual_score and not novel[start + row]:
                cluster[start + row] = near.cluster_id
    return novel, cluster


def _row(work: Path, draws: list[Draw], name: str, rate: float, slack: float, count: int) -> Row:
    answers = [_one_by_one(draw, work, rate) for draw in draws]
    false = np.concatenate([a[0][d.inside] for a, d in zip(answers, draws, strict=True)]).mean()
    found = [a[0][d.unseen] for a, d in zip(answers, draws, strict=True)]
    recall = np.concatenate(found).mean()
    wrong = np.concatenate([
        (cluster != draw.home)[draw.inside & (cluster >= 0) & (draw.home >= 0)]
        for (_, cluster), draw in zip(answers, draws, strict=True)
    ]).mean()  # fmt: skip
    return Row(
        f"online assignment, {name} spreads, at {rate:.0%}",
        f"false novels {false:.1%}, recall {recall:.3f}, wrong cluster {wrong:.2%}",
        f"at most {rate + slack:.0%}, at least 0.97, at most 0.5%",
        bool(false <= rate + slack and recall >= 0.97 and wrong <= 0.005),
        f"{len(draws)} draws of {count:,}; recall of each "
        + ", ".join(f"{each.mean():.2f}" for each in found),
    )


def _stream_row(work: Path, draw: Draw, name: str) -> Row:
    answers = stream(draw.known.novelty(work, 0.01), draw.vectors, 10_000_000)
    novel = np.array([answer.novel for answer in answers])
    apart = novel | np.array([answer.cluster_id is None for answer in answers])
    return Row(
        f"the same as a stream that learns, {name} spreads, at 1%",
        f"false novels {novel[draw.inside].mean():.1%}, unseen kept apart"
        f" {apart[draw.unseen].mean():.3f}, called novel {novel[draw.unseen].mean():.3f}",
        "report",
        None,
    )
