"""The process that chooses keepers: `python -m daemon.jobs.keeper_child RESULT`.

Looks at the runs of one camera that have ended, and at frames whose keeper gave way to another;
compares where something would change, and writes what it found as JSON. Nothing else.
"""

import json
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from daemon.dedup.change import prepare
from daemon.dedup.judge_state import JudgeState
from daemon.dedup.keeper import Choice, RunFrame, choose, compare
from daemon.dedup.reasons import changed, unchanged
from daemon.jobs.child import read_parameters, report
from daemon.jobs.signatures import SignatureSource
from daemon.messages import ChangeResult, FloatArray
from storage import dedup, duplicate_runs, embeddings
from storage.duplicate_words import Words, accepted_frames, edited_frames, words
from storage.engine import Database

COMPARED_AT_ONCE: Final = 24
LARGEST_RUN: Final = 1000
"""Frames of a run whose keeper may be exchanged. All of them have to be read from their files, at
some 40 ms each; a longer run keeps its keeper."""


class Tester:
    """The change test by a camera's present noise model, on frames from a source."""

    def __init__(
        self, db: Database, source: SignatureSource, camera_id: int, parameters: Mapping[str, Any]
    ) -> None:
        self._source = source
        self._limits: list[float] = parameters["limits"]  # with a tile map, without
        with db.read() as connection:
            state = dedup.load_state(connection, camera_id, dedup.LAST)
            self.said: Words = words(connection, camera_id)
        noise = None if state is None else JudgeState.from_bytes(bytes(state.payload), {}).noise
        self._noise = None if noise is None else noise.limits()

    def limit(self, result: ChangeResult) -> float:
        """The limit for a score, by whether a tile map took part in it."""
        return self._limits[1 if result.tile_score is None else 0]

    def passes(self, result: ChangeResult | None) -> bool:
        """Whether a frame may be removed; what could not be compared may not."""
        return result is not None and result.comparable and result.score <= self.limit(result)

    def results(self, keeper_id: int, ids: Sequence[int]) -> dict[int, ChangeResult]:
        """Each frame against a keeper; those that cannot be had are left out."""
        keeper = self._source.load([keeper_id]).get(keeper_id)
        if keeper is None or self._noise is None:
            return {}
        frames = ((frame.frame_id, prepare(frame)) for frame in self._source.frames(ids))
        return compare(prepare(keeper), frames, self._noise)

    def all_pass(self, keeper_id: int, ids: Sequence[int]) -> dict[int, ChangeResult] | None:
        """Each frame against a keeper, None as soon as one of them does not pass."""
        if any(self.said.forbid(frame_id, keeper_id) for frame_id in ids):
            return None
        found: dict[int, ChangeResult] = {}
        for start in range(0, len(ids), COMPARED_AT_ONCE):
            part = ids[start : start + COMPARED_AT_ONCE]
            results = self.results(keeper_id, part)
            if not all(self.passes(results.get(frame_id)) for frame_id in part):
                return None
            found |= results
        return found

    def verdict(self, frame_id: int, keeper_id: int, result: ChangeResult | None) -> dict[str, Any]:
        """What to store of a comparison: `keeper` None where the frame stays."""
        facts: dict[str, Any] = {"frame": frame_id, "keeper": None, "score": None, "tile": None}
        if result is None or not result.comparable:
            why = "it cannot be compared" if result is None else result.reason
            return facts | {"reason": f"kept: f{keeper_id} stands for the others now; {why}"}
        facts |= {"score": result.score, "tile": result.tile}
        if not self.passes(result) or self.said.forbid(frame_id, keeper_id):
            return facts | {"reason": changed(keeper_id, result, self.limit(result))}
        reason = unchanged(keeper_id, result, self.limit(result))
        return facts | {"keeper": keeper_id, "reason": reason}


def choose_keepers(
    db: Database, tester: Tester, parameters: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """What stays of every run of the camera that has ended and is not settled."""
    camera_id = int(parameters["camera"])
    with db.read() as connection:
        runs = duplicate_runs.unsettled_runs(connection, camera_id, set(parameters["live"]))
        applied = duplicate_runs.applied(connection, camera_id)
        keepers = [int(run[0].id) for run in runs]
        bound = edited_frames(connection, camera_id) | accepted_frames(connection, keepers)
    fixed = {*applied, *tester.said.decided}
    anchors = {*applied.values(), *tester.said.decided, *bound}
    told = []
    for number, rows in enumerate(runs):
        report("choosing keepers", number, len(runs))
        policy = parameters["policy"]
        vectors = _vectors(db, parameters, rows) if policy == "medoid" else {}
        run = [_run_frame(row, vectors, anchors) for row in rows]
        if len(run) > LARGEST_RUN:
            run[0] = replace(run[0], removable=False)
        scores = {int(row.id): row.change_score or 0.0 for row in rows}

        def test(
            keeper: int, ids: Sequence[int], scores: Mapping[int, float] = scores
        ) -> dict[int, ChangeResult] | None:
            # those that changed most decide soonest
            return tester.all_pass(keeper, sorted(ids, key=lambda i: -scores[i]))

        choice = choose(run, policy, test)
        if choice.last in fixed:
            choice = replace(choice, last=None, last_reason=None)
        told.append(_as_json(run[0].frame_id, choice, tester))
    return told


def _run_frame(row: Any, vectors: Mapping[int, FloatArray], anchors: Collection[int]) -> RunFrame:
    timed = row.time_source != "counter" and row.captured_ns is not None
    return RunFrame(
        frame_id=int(row.id),
        seconds=row.captured_ns / 1e9 if timed else None,
        pixels=(row.width or 0) * (row.height or 0),
        size=row.size or 0,
        sharpness=row.sharpness,
        exposure=row.exposure,
        vector=vectors.get(int(row.id)),
        removable=not row.alarm and row.id not in anchors,
    )


def _vectors(
    db: Database, parameters: Mapping[str, Any], rows: Sequence[Any]
) -> dict[int, FloatArray]:
    ids = [int(row.id) for row in rows]
    with db.read() as connection:
        found = embeddings.vectors_of(connection, parameters["signatures"]["space_id"], ids)
    pairs = zip(found.ids.tolist(), found.rows, strict=True)
    return {frame_id: np.asarray(row, dtype=np.float32) for frame_id, row in pairs}


def _as_json(first: int, choice: Choice, tester: Tester) -> dict[str, Any]:
    return {
        "first": first,
        "keeper": choice.keeper,
        "reason": choice.reason,
        "last": choice.last,
        "last_reason": choice.last_reason,
        "removed": [
            tester.verdict(frame_id, choice.keeper, result)
            for frame_id, result in choice.results.items()
        ],
    }


def follow_heirs(tester: Tester, pairs: Sequence[Sequence[int]]) -> list[dict[str, Any]]:
    """Verdicts of (frame, heir) pairs: frames whose keeper gave way to another."""
    by_heir: dict[int, list[int]] = {}
    for frame_id, heir in pairs:
        by_heir.setdefault(heir, []).append(frame_id)
    told = []
    for heir, ids in by_heir.items():
        results = tester.results(heir, ids)
        told += [tester.verdict(i, heir, results.get(i)) for i in ids]
    return told


def main() -> None:
    """Entry point of the process."""
    import cv2

    cv2.setNumThreads(1)
    parameters = read_parameters()
    camera_id = int(parameters["camera"])
    db = Database(Path(parameters["state_dir"]), read_only=True)
    try:
        with SignatureSource(db, parameters["signatures"]) as source:
            tester = Tester(db, source, camera_id, parameters)
            if "group" in parameters:
                keeper, ids = int(parameters["keeper"]), parameters["group"]
                results = tester.results(keeper, ids)
                answer: dict[str, Any] = {
                    "group": [tester.verdict(i, keeper, results.get(i)) for i in ids]
                }
            else:
                answer = {"heirs": follow_heirs(tester, parameters["heirs"])}
                answer["runs"] = choose_keepers(db, tester, parameters)
    finally:
        db.close()
    Path(sys.argv[1]).write_text(json.dumps(answer))


if __name__ == "__main__":
    main()
