"""What a human says of frames: recorded as decisions, undone by daemon/jobs/decision_undo.py."""

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from sqlalchemy import Connection, select

from daemon.clustering.online import OnlineNovelty
from daemon.jobs.judge import load_judge
from daemon.jobs.workshop import Workshop
from storage import clusters, decisions, dedup, embeddings, frames, plan_entries, runs
from storage.errors import ConflictError, NotFoundError
from storage.models import Cluster, Frame
from storage.names import CLUSTER, FRAME, RUN, format_id

_PLACE = ("cluster_id", "alarm", "novelty", "noise", "reason")


def accept_novel(workshop: Workshop, ids: Sequence[int], actor: str) -> dict[str, Any]:
    """Novel frames are expected from now on; new scenes seed a cluster that the next may join.

    A frame with a new place in a known scene stays in its cluster.

    Raises:
        NotFoundError: No such frame.
        ConflictError: A frame is not novel.
    """
    with workshop.quiet():
        with workshop.db.write() as connection:
            _check_novel(connection, ids)
            space_id = _space(workshop)
            run_id = new_run(workshop, connection, "accept", len(ids))
            places = _own_clusters(connection, ids)
            scenes = [frame_id for frame_id in ids if frame_id not in places]
            if scenes:
                seed = _seed_cluster(workshop, connection, space_id, scenes, run_id)
                places |= dict.fromkeys(scenes, seed)
            for frame_id in ids:
                _decide(workshop, connection, "accept", frame_id, places[frame_id], run_id, actor)
        workshop.serve(load_judge(workshop))
    return _result(run_id, ids, places.values())


def dismiss_novel(workshop: Workshop, ids: Sequence[int], actor: str) -> dict[str, Any]:
    """Novel frames were false alarms; each goes to its nearest cluster and widens nothing.

    Raises:
        NotFoundError: No such frame.
        ConflictError: A frame is not novel.
    """
    judge = load_judge(workshop)
    with workshop.db.write() as connection:
        _check_novel(connection, ids)
        space_id = _space(workshop)
        run_id = new_run(workshop, connection, "dismiss", len(ids))
        places = _own_clusters(connection, ids)
        scenes = [frame_id for frame_id in ids if frame_id not in places]
        places |= _nearest_clusters(connection, space_id, scenes, judge)
        # a false alarm must not stand for the cluster that it goes to
        stood = embeddings.set_weight(connection, space_id, scenes, 0)
        for frame_id in ids:
            facts = {"weight": stood.get(frame_id, 0), "space": space_id}
            place = places.get(frame_id)
            _decide(workshop, connection, "dismiss", frame_id, place, run_id, actor, facts)
    return _result(run_id, ids, places.values())


def discard_plan(workshop: Workshop, run_id: int, actor: str) -> dict[str, Any]:
    """Drop the verdicts of a dedup plan for good: its frames are kept from now on.

    Raises:
        ConflictError: The plan was applied.
        NotFoundError: No such dedup run.
    """
    with workshop.files, workshop.db.write() as connection:
        row = runs.get_run(connection, run_id)
        if row["kind"] != "dedup":
            raise NotFoundError(f"{format_id(RUN, run_id)} is no dedup plan.")
        entries = plan_entries.entries_of(connection, run_id)
        if any(entry["state"] == "applied" for entry in entries):
            raise ConflictError(
                f"{format_id(RUN, run_id)} was applied.",
                hint=f"`stillwatch undo {format_id(RUN, run_id)}` first.",
            )
        near = dedup.keepers_of(connection, [int(entry["frame_id"]) for entry in entries])
        for frame_id in near:
            decisions.add(
                connection,
                "keep",
                actor=actor,
                at=workshop.wall(),
                run_id=run_id,
                frame_id=frame_id,
            )
        dedup.clear_verdicts(connection, list(near), "kept: its owner discarded the verdict")
        runs.discard_run(connection, run_id)
    return {"run": format_id(RUN, run_id), "discarded": len(near)}


def new_run(workshop: Workshop, connection: Connection, what: str, count: int) -> int:
    """A run of kind `decision`, so that what a human said can be undone."""
    now = workshop.wall()
    run_id = runs.create_run(
        connection, "decision", [], now=now, counts={"decided": count}, parameters={"what": what}
    )
    runs.set_state(connection, run_id, "applied")
    return run_id


def _space(workshop: Workshop) -> int:
    space = workshop.current_space()
    if space is None:
        raise ConflictError("There is no embedding yet.", hint="Run the daemon on a folder first.")
    return space[0]


def _check_novel(connection: Connection, ids: Sequence[int]) -> None:
    for frame_id in ids:
        state = connection.execute(select(Frame.state).where(Frame.id == frame_id)).scalar()
        if state is None:
            raise NotFoundError(f"There is no frame {format_id(FRAME, frame_id)}.")
        if state != "novel":
            raise ConflictError(
                f"{format_id(FRAME, frame_id)} is not novel but {state}.",
                hint="`stillwatch novel` lists what waits for a decision.",
            )


def _decide(
    workshop: Workshop,
    connection: Connection,
    kind: str,
    frame_id: int,
    cluster_id: int | None,
    run_id: int,
    actor: str,
    facts: Mapping[str, Any] = MappingProxyType({}),
) -> None:
    columns = [getattr(Frame, name) for name in _PLACE]
    before = connection.execute(select(*columns).where(Frame.id == frame_id)).mappings().one()
    decisions.add(
        connection,
        kind,
        actor=actor,
        at=workshop.wall(),
        run_id=run_id,
        frame_id=frame_id,
        cluster_id=cluster_id,
        data={"before": dict(before)} | dict(facts),
    )
    word = "accepted" if kind == "accept" else "dismissed as a false alarm"
    frames.update_frame(
        connection,
        frame_id,
        alarm=False,
        novelty=None,
        cluster_id=cluster_id,
        noise=cluster_id is None,
        reason=f"{word} by {actor}",
    )


def _own_clusters(connection: Connection, ids: Sequence[int]) -> dict[int, int]:
    """The clusters of those frames that have one: there only a place is novel."""
    query = select(Frame.id, Frame.cluster_id).where(
        Frame.id.in_(ids), Frame.cluster_id.is_not(None)
    )
    return {int(row.id): int(row.cluster_id or 0) for row in connection.execute(query)}


def _seed_cluster(
    workshop: Workshop,
    connection: Connection,
    space_id: int,
    frame_ids: Sequence[int],
    run_id: int,
) -> int:
    """A new cluster around accepted frames, with the usual scale of the others."""
    known = sorted(clusters.scales(connection, space_id).values())
    scale = known[len(known) // 2] if known else workshop.settings.clustering.collapse_distance
    cluster_id = clusters.create_cluster(
        connection, space_id=space_id, now=workshop.wall(), run_id=run_id
    )
    limits = connection.execute(
        select(Cluster.max_distance / Cluster.distance_scale)
        .where(Cluster.space_id == space_id, Cluster.distance_scale > 0)
        .limit(1)
    ).scalar()
    clusters.set_measures(
        connection,
        cluster_id,
        medoid_frame_id=frame_ids[0],
        distance_scale=scale,
        max_distance=min(2.0, scale * float(limits or 4.0)),
    )
    embeddings.represent(connection, space_id, dict.fromkeys(frame_ids, (1, scale)))
    clusters.add_event(
        connection,
        "cluster_born",
        workshop.wall(),
        cluster_id=cluster_id,
        run_id=run_id,
        data={"frames": len(frame_ids)},
    )
    return cluster_id


def _nearest_clusters(
    connection: Connection, space_id: int, ids: Sequence[int], judge: OnlineNovelty | None
) -> dict[int, int]:
    if judge is None:
        return {}
    vectors = embeddings.vectors_of(connection, space_id, ids)
    return {
        int(frame_id): place.nearest_cluster_id
        for frame_id, place in zip(vectors.ids, judge.look(vectors.rows), strict=True)
        if place.nearest_cluster_id is not None
    }


def _result(run_id: int, ids: Sequence[int], places: Iterable[int]) -> dict[str, Any]:
    """`cluster`: where all of the frames went that went anywhere; None for several."""
    only = set(places)
    return {
        "run": format_id(RUN, run_id),
        "frames": [format_id(FRAME, i) for i in ids],
        "cluster": format_id(CLUSTER, only.pop() if len(only) == 1 else None),
    }
