"""A week of a simulated camera, live, killed again and again, everything on: nothing is lost.

    python -m tests.benchmarks.simulated_week --work FOLDER [--frames 10000] [--kills 50] [--seed 7]

Draws a week (a frame a minute: day and night, clouds, wind, passers-by) into FOLDER, once; then
sends it to the real daemon, as fast as that keeps up, with dedup, filing (mode move) and prune on
and almost no retention, and kills the daemon with SIGKILL at random moments. At the end: `verify`;
whether every frame that was taken for redundant shows what its keeper on disk shows; then every
run undone, newest first, and the folder compared with what was sent. Ends with 1 where a row does
not hold.

What a frame shows is known from its drawing: an event is a visitor visible on at least 0.25 % of
the picture. A frame may be redundant if its keeper shows the same visit at the same place
(overlap of the boxes at least 0.5), or if neither shows an event, or if the keeper shows the same
visitor on an earlier visit in the very same spot (overlap at least 0.85), which is counted apart.
"""

import argparse
import hashlib
import os
import shutil
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.benchmarks.rows import Row, all_hold, table
from tests.benchmarks.week_camera import Truth
from tests.benchmarks.week_live import Camera, Killed, live, rendered, settings
from tests.end_to_end.process import Row as FrameRow
from tests.end_to_end.process import Site, facts

GONE: Final = ("near_duplicate", "exact_duplicate", "trashed", "pruned")
"""States of frames that another one stands for."""
UNDOABLE: Final = ("dedup", "filing", "folders", "trash")
FRAMES, KILLS, SEED = 10_000, 50, 7
A_FEW: Final = 1_000
"""Up to so many frames a run takes a minute or two."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """Seconds between two plans, to the trash, and in the trash; most files of a prune run."""

    every_seconds: float
    trash_seconds: float
    delete_seconds: float
    files: int


AN_HOUR: Final = Retention(every_seconds=8, trash_seconds=60, delete_seconds=12, files=300)
"""For the whole week: at its end some frames are filed, some in the trash, most deleted."""
A_MINUTE: Final = Retention(every_seconds=1.5, trash_seconds=1, delete_seconds=1, files=40)
"""The same for a few hundred frames."""


@dataclass(slots=True)
class Lost:
    """Frames taken for redundant though their keeper shows something else, or is not on disk.

    `returned` are no losses: their keeper shows the same visitor in the same spot, another time.
    """

    events: list[str] = field(default_factory=list)
    changes: list[str] = field(default_factory=list)
    orphans: list[str] = field(default_factory=list)
    returned: list[str] = field(default_factory=list)
    visits: set[int] = field(default_factory=set)


@dataclass(slots=True)
class Undone:
    """Undone runs by exit code, what went wrong, and how the folder differs from what was sent."""

    codes: Counter[int] = field(default_factory=Counter)
    refused: list[str] = field(default_factory=list)
    pruned: int = 0
    journal_agrees: bool = False
    differences: list[str] = field(default_factory=list)


def lost(rows: Sequence[FrameRow], truths: Sequence[Truth]) -> Lost:
    """Compare every redundant frame with the frame that stands for it in the end."""
    known = {truth.name: truth for truth in truths}
    by_id = {row["id"]: row for row in rows}
    found = Lost()
    kept_visits = set()
    for row in rows:
        truth = known[row["original_path"]]
        if row["state"] not in GONE:
            kept_visits |= {truth.visit} if truth.event else set()
            continue
        keeper = _keeper(row, by_id)
        if keeper is None or keeper["state"] in (*GONE, "missing"):
            found.orphans.append(_words(row, truth, None))
        elif truth.returned(known[keeper["original_path"]]):
            found.returned.append(_words(row, truth, known[keeper["original_path"]]))
        elif not truth.shows_what(known[keeper["original_path"]]):
            lists = found.events if truth.event else found.changes
            lists.append(_words(row, truth, known[keeper["original_path"]]))
    found.visits = {truth.visit for truth in truths if truth.event} - kept_visits
    return found


def _keeper(row: FrameRow, by_id: dict[str, FrameRow]) -> FrameRow | None:
    """Who stands for a frame; where that one is redundant by now, who stands for that one."""
    seen = {row["id"]}
    while row["state"] in GONE:
        keeper = by_id.get(row["duplicate_of"])
        if keeper is None or keeper["id"] in seen:
            return None
        seen.add(keeper["id"])
        row = keeper
    return row


def _words(row: FrameRow, truth: Truth, keeper: Truth | None) -> str:
    score = row["change_score"]
    scored = "" if score is None else f", score {score:.2f}"
    words = f"{row['id']} {truth.name} {row['state']} (visit {truth.visit}, {truth.share:.2%}"
    other = "nobody on disk" if keeper is None else f"{keeper.name} (visit {keeper.visit}"
    return f"{words}{scored}) for {other}" + ("" if keeper is None else f", {keeper.share:.2%})")


def undo_everything(site: Site, source: Path, names: Sequence[str]) -> Undone:
    """Undo every run that moved files, newest first, and compare the folder with the source."""
    done = Undone()
    kinds = ", ".join(f"'{kind}'" for kind in UNDOABLE)
    query = f"SELECT id FROM runs WHERE kind IN ({kinds}) AND state IN ('applied', 'partly')"
    for (number,) in site.table(f"{query} ORDER BY id DESC"):
        answer = site.cli("undo", f"r{number}", "--yes", "--json", timeout=1800)
        done.codes[answer.code] += 1
        if answer.code not in (0, 3):
            done.refused.append(f"r{number}: {answer.out.strip()[:300]}")
    deleted = {row["original_path"] for row in site.rows() if row["state"] == "pruned"}
    done.pruned = len(deleted)
    listed = site.table(
        "SELECT DISTINCT frames.original_path FROM journal JOIN frames ON frames.id = frame_id"
        " WHERE operation = 'delete' AND journal.state = 'done'"
    )
    done.journal_agrees = {os.fsdecode(path) for (path,) in listed} == deleted
    now = {name: digest for name, (digest, _, _) in facts(site.folder).items()}
    sent = {name: _digest(source / name) for name in names if name not in deleted}
    done.differences = sorted(
        name for name in now.keys() | sent.keys() if now.get(name) != sent.get(name)
    )
    return done


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def week(
    site: Site, source: Path, *, frames: int, kills: int, seed: int, retention: Retention
) -> list[Row]:
    """Everything, from the first picture to the comparison after the last undo.

    Args:
        site: Empty folders; its settings are replaced.
        source: Where the week is drawn to, or was.
        frames: A frame a minute.
        kills: SIGKILLs.
        seed: Of the yard, what happens in it, and the moments of the kills.
        retention: How long redundant frames stay.
    """
    truths = rendered(source, frames, seed)
    names = [truth.name for truth in truths]
    site.write_settings(
        settings(
            retention.every_seconds,
            retention.trash_seconds,
            retention.delete_seconds,
            retention.files,
        )
    )
    began = time.monotonic()
    killed = live(site, Camera(site, source, names), kills, seed)
    seconds = time.monotonic() - began
    rows = site.rows()
    checks = [_verify(site, "verify after the week")]
    undone = undo_everything(site, source, names)
    checks.append(_verify(site, "verify after every undo"))
    redundancy = _redundancy_rows(rows, truths, lost(rows, truths))
    return [
        *_live_rows(rows, killed, kills, seconds, len(names)),
        *redundancy,
        *checks,
        *_undo_rows(undone),
    ]


def _verify(site: Site, name: str) -> Row:
    answer = site.cli("verify", "--json", timeout=1800)
    found = answer.json()
    wrong = {key: value[:3] for key, value in found.items() if key[0] == "I" and value}
    ok = answer.code == 0 and found["ok"]
    return Row(name, "ok" if ok else "not ok", "ok", ok, str(wrong) if wrong else "")


def _live_rows(
    rows: Sequence[FrameRow], killed: Killed, kills: int, seconds: float, frames: int
) -> list[Row]:
    struck = f"{killed.starting} while starting, {killed.moving} into a run that moves files, "
    struck += f"{killed.open_operations} of these into a file operation"
    minutes = f"{frames / seconds:.1f} frames a second with the restarts"
    once = len(rows) == frames and len({row["original_path"] for row in rows}) == frames
    return [
        Row("frames, live", f"{frames:,} in {seconds:.0f} s", "", None, minutes),
        Row("SIGKILLs", str(killed.kills), str(kills), killed.kills == kills, struck),
        Row("rows for the files", f"{len(rows):,}", f"{frames:,}", once),
    ]


def _redundancy_rows(rows: Sequence[FrameRow], truths: Sequence[Truth], found: Lost) -> list[Row]:
    states = Counter(row["state"] for row in rows)
    gone = sum(states[state] for state in GONE)
    events = sum(truth.event for truth in truths)
    visits = len({truth.visit for truth in truths if truth.event})
    glimpses = sum(truth.visit >= 0 and not truth.event for truth in truths)
    listed = ", ".join(f"{state} {count}" for state, count in sorted(states.items()))
    return [
        Row("removed", f"{gone / len(rows):.1%} of all", "", None, listed),
        Row("events lost", *_none(found.events, f" of {events} frames with one")),
        Row("visits lost", *_none(sorted(found.visits), f" of {visits} visits")),
        Row("changes merged", *_none(found.changes, " frames without an event")),
        Row("redundant without a keeper on disk", *_none(found.orphans, "")),
        Row("same visitor, same spot, another visit", f"{len(found.returned)} frames", "", None),
        Row("glimpses", f"{glimpses} frames", "", None, "a visitor on less than 0.25 %"),
    ]


def _none(found: Sequence[object], of: str) -> tuple[str, str, bool, str]:
    return f"{len(found)}{of}", "0", not found, "; ".join(map(str, found[:6]))


def _undo_rows(undone: Undone) -> list[Row]:
    told = "journal lists exactly these" if undone.journal_agrees else "the journal lists others"
    codes = ", ".join(f"{count} with exit {code}" for code, count in sorted(undone.codes.items()))
    refused = "; ".join(undone.refused[:5])
    return [
        Row("pruned", str(undone.pruned), "> 0", undone.pruned > 0, told),
        Row("journal lists the pruned", told.split()[-1], "these", undone.journal_agrees),
        Row("runs undone, newest first", codes, "0 or 3", not undone.refused, refused),
        Row("names and bytes that differ", *_none(undone.differences, " beside the pruned")),
    ]


def measure(
    work: Path,
    quick: bool = False,
    *,
    frames: int = FRAMES,
    kills: int = KILLS,
    seed: int = SEED,
) -> list[Row]:
    """Rows of one week, with `quick` of five hours.

    The folders of a run before this one are replaced; a week that was drawn is used again.
    """
    if quick:
        frames, kills = 300, 3
    place = work / f"live-{frames}-{kills}-{seed}"
    shutil.rmtree(place, ignore_errors=True)
    source = work / f"week-{frames}-{seed}"
    retention = AN_HOUR if frames > A_FEW else A_MINUTE
    return week(Site(place), source, frames=frames, kills=kills, seed=seed, retention=retention)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--frames", type=int, default=FRAMES)
    parser.add_argument("--kills", type=int, default=KILLS)
    parser.add_argument("--seed", type=int, default=SEED)
    options = parser.parse_args()
    rows = measure(options.work, frames=options.frames, kills=options.kills, seed=options.seed)
    print(table(rows))
    return 0 if all_hold(rows) else 1


if __name__ == "__main__":
    sys.exit(main())
