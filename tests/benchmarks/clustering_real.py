"""Clustering of real pictures with defaults only, beside the peers on the same embeddings.

    python -m tests.benchmarks.clustering_real DEV_FOLDER [--fastdup PYTHON]

Three labelled sets through the default encoder and its int8 form; ARI on the full set and the
median of seeded 95 % subsets; novelty with one class left out.
"""

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from daemon.settings import Settings
from tests.benchmarks.contest import OURS, Contest, Entry, contest, contest_table, ours
from tests.benchmarks.contest_reasons import reasons
from tests.benchmarks.embedded import FLOAT32, INT8, Embedded, embedded
from tests.benchmarks.leave_one_out import LeftOut, leave_one_class_out
from tests.benchmarks.rows import Row, table

FRUITS: Final = "labelled_fruits"
ROAD: Final = "fixedcam_road"
CLOTHING: Final = "labelled_clothing"
LEAST_ARI: Final = {FRUITS: 0.85, ROAD: 0.75}
"""Clothing is reported only: phone photos of garments, no scene recurs."""
BEHIND: Final = 0.02
"""How far behind the first density method we may be."""
LEAST_AUROC: Final = 0.96
MAX_LOSS_AUROC: Final = 0.02
MAX_LOSS_ARI: Final = 0.03
SUBSETS: Final = 12
QUICK_SUBSETS: Final = 4


@dataclass(frozen=True, slots=True)
class Outcome:
    """`rows`: the checks; `text`: the table of all methods and why the peers fail, Markdown."""

    rows: list[Row]
    text: str


def measure(dev: Path, work: Path, quick: bool, fastdup: Path | None = None) -> Outcome:
    """Everything this module measures.

    Args:
        dev: Folder with the sets.
        work: Keeps the embeddings between runs.
        quick: Fewer subsets.
        fastdup: Interpreter of an environment with fastdup 2.54; None: not run.
    """
    count = QUICK_SUBSETS if quick else SUBSETS
    floats = [embedded(dev, name, work).clear() for name in (FRUITS, ROAD, CLOTHING)]
    ints = {name: embedded(dev, name, work, INT8).clear() for name in (FRUITS, ROAD)}
    contests = [contest(data, count, fastdup) for data in floats]
    rows = [row for each in contests for row in _clustering_rows(each, count, fastdup)]
    novelty = {data.name: leave_one_class_out(data.vectors, data.labels) for data in floats[::2]}
    rows += _novelty_rows(novelty)
    rows += _int8_rows({each.data.name: each.entry(OURS) for each in contests}, ints, count)
    rows.append(_int8_novelty(novelty[FRUITS], ints[FRUITS]))
    sentences = [line for each in contests for line in reasons(each)]
    stability = [_stability(each) for each in contests]
    parts = [contest_table(contests), "\n".join(stability), "Why the peers fail:"]
    return Outcome(rows, "\n\n".join([*parts, "\n".join(sentences)]))


def _clustering_rows(each: Contest, count: int, fastdup: Path | None) -> list[Row]:
    name, mine = each.data.name, each.entry(OURS)
    least = LEAST_ARI.get(name)
    rival = each.best_other(lambda entry: entry.middle)
    rival_full = each.best_other(lambda entry: entry.ari)
    first = mine.middle >= rival.middle - BEHIND and mine.ari >= rival_full.ari - BEHIND
    return [
        Row(
            f"{name}: ARI, median of {count} subsets of 95 %",
            f"{mine.middle:.3f}",
            "reported only" if least is None else f"at least {least}",
            None if least is None else mine.middle >= least,
            f"full set {mine.ari:.3f}; subsets {min(mine.subsets):.3f} to {max(mine.subsets):.3f}",
        ),
        Row(
            f"{name}: rank among the density methods",
            f"{mine.middle:.3f} against {rival.middle:.3f} (full {mine.ari:.3f} against "
            f"{rival_full.ari:.3f})",
            f"first, or within {BEHIND} of it",
            first,
            f"next: {rival.method}" + ("" if fastdup else "; fastdup not run"),
        ),
    ]


def _novelty_rows(novelty: dict[str, LeftOut]) -> list[Row]:
    rows = []
    for name, found in novelty.items():
        label, worst = found.worst
        rows.append(
            Row(
                f"{name}: novelty, leave one class out, mean AUROC",
                f"{found.mean:.3f}",
                f"at least {LEAST_AUROC}" if name == FRUITS else "reported only",
                found.mean >= LEAST_AUROC if name == FRUITS else None,
                f"worst {worst:.3f} ({label})",
            )
        )
    return rows


def _int8_rows(floats: dict[str, Entry], ints: dict[str, Embedded], count: int) -> list[Row]:
    """What the int8 encoder loses in clustering."""
    rows = []
    for name, data in ints.items():
        mine, quantised = floats[name], ours(data, count)
        note = f"full set {quantised.ari:.3f} against {mine.ari:.3f}"
        title = f"{name}: ARI lost by the int8 encoder (medians)"
        rows.append(_loss(title, mine.middle, quantised.middle, MAX_LOSS_ARI, note))
    return rows


def _int8_novelty(floats: LeftOut, data: Embedded) -> Row:
    found = leave_one_class_out(data.vectors, data.labels)
    note = f"worst class {found.worst[1]:.3f} against {floats.worst[1]:.3f}"
    title = f"{data.name}: AUROC lost by the int8 encoder"
    return _loss(title, floats.mean, found.mean, MAX_LOSS_AUROC, note)


def _loss(title: str, floats: float, ints: float, most: float, note: str) -> Row:
    default = Settings().encoder.id
    lost = floats - ints
    return Row(
        title,
        f"{lost:+.3f} ({floats:.3f} to {ints:.3f}); the default is {default}",
        f"at most {most}, or float32 is the default",
        lost <= most or default == FLOAT32,
        note,
    )


def _stability(each: Contest) -> str:
    """The subsets in print: how much hangs on the few rows left out."""
    scores = ", ".join(f"{score:.3f}" for score in sorted(each.entry(OURS).subsets))
    return f"- {each.data.name}, default, each subset's ARI: {scores}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description="Clustering of real pictures.")
    parser.add_argument("dev", type=Path, metavar="DEV_FOLDER")
    parser.add_argument("--fastdup", type=Path, metavar="PYTHON")
    parser.add_argument("--quick", action="store_true")
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as work:
        outcome = measure(chosen.dev, Path(work), chosen.quick, chosen.fastdup)
    print(f"{table(outcome.rows)}\n\n{outcome.text}")


if __name__ == "__main__":
    main()
