"""What a human says of duplicates: these are none, this frame stays, this one is the keeper.

Each word is a decision with actor and time; it outlives plans, thresholds and encoders, and
`undo` takes it back (daemon/jobs/decision_undo.py). Rows only: no file is moved.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, select

from daemon.jobs.child import Progress
from daemon.jobs.decisions import new_run
from daemon.jobs.keepers import ask_child, write_verdict
from daemon.jobs.workshop import Workshop
from storage import cameras, decisions, dedup, duplicate_runs, frames
from storage.duplicate_words import APART, KEEP, KEEPER, verdicts_of, words
from storage.errors import ConflictError, NotFoundError
from storage.models import Frame
from storage.names import FRAME, RUN, format_id


def keep_frames(workshop: Workshop, ids: Sequence[int], actor: str) -> dict[str, Any]:
    """These frames stay: never duplicates from now on, never exchanged as keepers, never freed.

    Raises:
        NotFoundError: No such frame.
        ConflictError: A frame is not on disk.
    """
    with workshop.files, workshop.db.write() as connection:
        for frame_id in ids:
            _on_disk(connection, frame_id)
        run_id = new_run(workshop, connection, KEEP, len(ids))
        before = verdicts_of(connection, ids)
        for frame_id in ids:
            facts = {"before": before[frame_id]}
            _decide(workshop, connection, KEEP, frame_id, run_id, actor, facts)
        redundant = [i for i in ids if before[i]["duplicate_of"] is not None]
        _release(connection, redundant, f"kept: {actor} said so")
    return _result(run_id, ids, kept=redundant)


def set_apart(workshop: Workshop, frame_id: int, keeper_id: int, actor: str) -> dict[str, Any]:
    """Two frames are no duplicates of each other, whatever the change test says.

    Raises:
        NotFoundError: No such frame.
        ConflictError: One frame twice, frames of two cameras, not on disk, or the same bytes.
    """
    with workshop.files, workshop.db.write() as connection:
        rows = [_on_disk(connection, i) for i in (frame_id, keeper_id)]
        names = format_id(FRAME, frame_id), format_id(FRAME, keeper_id)
        if frame_id == keeper_id or rows[0].camera_id != rows[1].camera_id:
            raise ConflictError(
                f"{names[0]} and {names[1]} cannot be duplicates of each other anyway.",
                hint="Name two frames of one camera.",
            )
        if rows[0].sha256 == rows[1].sha256:
            raise ConflictError(
                f"{names[0]} and {names[1]} have the same bytes.",
                hint=f"`stillwatch dedup keep {names[0]} --yes` keeps both files.",
            )
        run_id = new_run(workshop, connection, APART, 1)
        before = verdicts_of(connection, (frame_id, keeper_id))
        facts = {"keeper": keeper_id, "before": before[frame_id]}
        _decide(workshop, connection, APART, frame_id, run_id, actor, facts)
        # the one that stands for the other may be either of them
        freed = [
            a
            for a, b in ((frame_id, keeper_id), (keeper_id, frame_id))
            if before[a]["duplicate_of"] == b
        ]
        _release(connection, freed, f"kept: no duplicate of the other, said {actor}")
    return _result(run_id, [frame_id, keeper_id], kept=freed)


def make_keeper(
    workshop: Workshop, frame_id: int, actor: str, progress: Progress
) -> dict[str, Any]:
    """This frame is the keeper of its group: who passes against it follows, the others are kept.

    Raises:
        NotFoundError: No such frame.
        ConflictError: It is not on disk, or some of its group are filed already.
        JobFailedError: The frames could not be compared; nothing was changed.
    """
    with workshop.files:
        with workshop.db.read() as connection:
            row = _on_disk(connection, frame_id)
            group = _group(connection, row)
            said = words(connection, row.camera_id)
            camera = next(
                one for one in cameras.list_cameras(connection) if one.id == row.camera_id
            )
        free = [i for i in group if i not in said.pinned]
        verdicts: list[dict[str, Any]] = []
        if free and row.duplicate_of is not None:
            wanted = {"live": [], "keeper": frame_id, "group": free}
            verdicts = ask_child(workshop, camera, wanted, progress)["group"]
        with workshop.db.write() as connection:
            run_id = new_run(workshop, connection, KEEPER, 1)
            touched = [frame_id, *(v["frame"] for v in verdicts)]
            before = verdicts_of(connection, touched)
            follows = {str(v["frame"]): v["keeper"] for v in verdicts}
            facts = {
                "before": before[frame_id],
                "group": [int(i) for i in follows],
                "befores": {str(i): before[i] for i in touched[1:]},
            }
            _decide(workshop, connection, KEEPER, frame_id, run_id, actor, facts)
            if row.duplicate_of is not None:
                _release(connection, [frame_id], f"keeper of its group, said {actor}")
            for verdict in verdicts:
                write_verdict(connection, verdict)
            frames.update_frame(connection, frame_id, run_settled=True)
            duplicate_runs.break_chains(connection, row.camera_id)
    followed = [int(i) for i, keeper in follows.items() if keeper is not None]
    kept = [int(i) for i, keeper in follows.items() if keeper is None]
    return _result(run_id, [frame_id], kept=kept) | {
        "followed": [format_id(FRAME, i) for i in followed]
    }


def _group(connection: Connection, row: Any) -> list[int]:
    """The other frames of a redundant frame's group, its keeper first; none where it is kept.

    Raises:
        ConflictError: A run has moved some of them.
    """
    if row.duplicate_of is None:
        return []
    if row.duplicate_kind == "exact":
        names = format_id(FRAME, row.id), format_id(FRAME, row.duplicate_of)
        raise ConflictError(
            f"{names[0]} has the same bytes as {names[1]}.",
            hint="One is as good as the other; `stillwatch dedup keep` keeps both files.",
        )
    owner = duplicate_runs.applied(connection, row.camera_id)
    moved = next((i for i, keeper in owner.items() if keeper == row.duplicate_of), None)
    if moved is not None:
        name = format_id(FRAME, moved)
        raise ConflictError(
            f"The verdict on {name} of this group was applied already.",
            hint="`stillwatch undo` the run that moved it first: `stillwatch runs`.",
        )
    members = dedup.members_of(connection, row.duplicate_of)
    return [int(row.duplicate_of), *(i for i in members if i != row.id)]


def _on_disk(connection: Connection, frame_id: int) -> Any:
    columns = (
        Frame.id,
        Frame.camera_id,
        Frame.presence,
        Frame.state,
        Frame.sha256,
        Frame.duplicate_of,
        Frame.duplicate_kind,
    )
    row = connection.execute(select(*columns).where(Frame.id == frame_id)).one_or_none()
    name = format_id(FRAME, frame_id)
    if row is None:
        raise NotFoundError(f"There is no frame {name}.")
    if row.presence != "here" or row.state in ("pending", "rejected"):
        raise ConflictError(f"{name} is {row.state}.", hint=f"`stillwatch why {name}` says why.")
    return row


def _decide(
    workshop: Workshop,
    connection: Connection,
    kind: str,
    frame_id: int,
    run_id: int,
    actor: str,
    facts: Mapping[str, Any],
) -> None:
    decisions.add(
        connection,
        kind,
        actor=actor,
        at=workshop.wall(),
        run_id=run_id,
        frame_id=frame_id,
        data=dict(facts),
    )


def _release(connection: Connection, ids: Collection[int], reason: str) -> None:
    """Kept frames from now on; the score stays, the camera's limit is estimated from all scores."""
    values = {"duplicate_kind": None, "duplicate_of": None, "reason": reason}
    frames.update_frames(connection, [{"id": i} | values for i in ids])


def _result(run_id: int, ids: Sequence[int], *, kept: Sequence[int]) -> dict[str, Any]:
    return {
        "run": format_id(RUN, run_id),
        "frames": [format_id(FRAME, i) for i in ids],
        "kept": [format_id(FRAME, i) for i in kept],
    }
