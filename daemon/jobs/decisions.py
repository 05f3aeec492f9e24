"""What a human says of frames and clusters: recorded as decisions, each with its undo."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, select

from daemon.clustering.assignment import Assigner
from daemon.jobs.workshop import Workshop, load_assigner
from storage import clusters, decisions, dedup, embeddings, frames, runs
from storage.errors import ConflictError, NotFoundError, UsageError
from storage.models import Cluster, Frame
from storage.names import CLUSTER, FRAME, RUN, format_id

_PLACE = ("cluster_id", "alarm", "novelty", "noise", "reason")


def rename_cluster(
    workshop: Workshop, cluster_id: int, name: str | None, actor: str
) -> dict[str, Any]:
    """Give a cluster a name; an empty name takes it away.

    Raises:
        NotFoundError: No such cluster.
        UsageError: The name is taken or unusable.
    """
    name = (name or "").strip() or None
    if name is not None and (len(name) > 200 or not name.isprintable()):
        raise UsageError("A name has at most 200 characters, all of them printable.")
    with workshop.db.write() as connection:
        row = clusters.find(connection, cluster_id)
        if row is None:
            raise _no_cluster(cluster_id)
        taken = {n: c for c, n in clusters.names(connection).items()}
        if name is not None and taken.get(name, cluster_id) != cluster_id:
            raise UsageError(
                f"The name {name!r} belongs to {format_id(CLUSTER, taken[name])} already."
            )
        run_id = _new_run(workshop, connection, "rename", 1)
        decisions.add(
            connection,
            "rename",
            actor=actor,
            at=workshop.wall(),
            run_id=run_id,
            cluster_id=cluster_id,
            data={"before": row.name, "after": name},
        )
        clusters.rename(connection, cluster_id, name)
    return {
        "run": format_id(RUN, run_id),
        "cluster": format_id(CLUSTER, cluster_id),
        "name": name,
    }


def accept_novel(workshop: Workshop, ids: Sequence[int], actor: str) -> dict[str, Any]:
    """Novel frames are expected from now on; they seed a cluster that the next ones may join.

    Raises:
        NotFoundError: No such frame.
        ConflictError: A frame is not novel.
    """
    with workshop.quiet():
        with workshop.db.write() as connection:
            _check_novel(connection, ids)
            space_id = _space(workshop)
            run_id = _new_run(workshop, connection, "accept", len(ids))
            cluster_id = _seed_cluster(workshop, connection, space_id, ids[0], run_id)
            for frame_id in ids:
                _decide(workshop, connection, "accept", frame_id, cluster_id, run_id, actor)
            embeddings.add_representatives(connection, ids)
        workshop.serve(load_assigner(workshop))
    return _result(run_id, ids, cluster_id)


def dismiss_novel(workshop: Workshop, ids: Sequence[int], actor: str) -> dict[str, Any]:
    """Novel frames were false alarms; each goes to its nearest cluster and widens nothing.

    Raises:
        NotFoundError: No such frame.
        ConflictError: A frame is not novel.
    """
    assigner = load_assigner(workshop)
    with workshop.db.write() as connection:
        _check_novel(connection, ids)
        space_id = _space(workshop)
        run_id = _new_run(workshop, connection, "dismiss", len(ids))
        nearest = _nearest_clusters(connection, space_id, ids, assigner)
        for frame_id in ids:
            cluster_id = nearest.get(frame_id)
            _decide(workshop, connection, "dismiss", frame_id, cluster_id, run_id, actor)
    only = set(nearest.values())
    return _result(run_id, ids, only.pop() if len(only) == 1 else None)


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
        entries = runs.entries_of(connection, run_id)
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


def undo_decisions(workshop: Workshop, run_id: int) -> dict[str, Any]:
    """Take back a rename, accept or dismiss.

    Raises:
        ConflictError: A later decision touched the same frame or cluster.
    """
    with workshop.quiet():
        with workshop.db.write() as connection:
            made = decisions.of_run(connection, run_id)
            for row in made:
                _refuse_if_superseded(connection, row, run_id)
            for row in made:
                _restore(connection, row)
            _drop_seeds(workshop, connection, run_id)
            decisions.mark_undone(connection, run_id, workshop.wall())
            runs.set_state(connection, run_id, "undone")
        workshop.serve(load_assigner(workshop))
    return {"run": format_id(RUN, run_id), "restored": len(made), "skipped": 0, "entries": []}


def _restore(connection: Connection, row: Any) -> None:
    before = (row.data or {}).get("before")
    if row.kind == "rename":
        clusters.rename(connection, int(row.cluster_id), before)
    elif before is not None:
        frames.update_frame(connection, int(row.frame_id), **before)


def _drop_seeds(workshop: Workshop, connection: Connection, run_id: int) -> None:
    """Retire the cluster that this run seeded unless a clustering has filled it since."""
    seeded = connection.execute(
        select(Cluster.id).where(Cluster.created_run_id == run_id, Cluster.state == "active")
    ).scalars()
    for cluster_id in list(seeded):
        members = connection.execute(
            select(Frame.id).where(Frame.cluster_id == cluster_id).limit(1)
        ).first()
        if members is None:
            clusters.retire(connection, [cluster_id], workshop.wall())


def _refuse_if_superseded(connection: Connection, row: Any, run_id: int) -> None:
    if row.kind == "rename":
        later = [
            d
            for d in decisions.standing(connection, ("rename",))
            if d.cluster_id == row.cluster_id and d.id > row.id
        ]
        if later:
            raise ConflictError(
                f"{format_id(CLUSTER, row.cluster_id)} was renamed again after"
                f" {format_id(RUN, run_id)}.",
                hint="Undo the later run first.",
            )


def _new_run(workshop: Workshop, connection: Connection, what: str, count: int) -> int:
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
        data={"before": dict(before)},
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


def _seed_cluster(
    workshop: Workshop, connection: Connection, space_id: int, medoid: int, run_id: int
) -> int:
    """A new cluster around an accepted frame, with the usual scale of the others."""
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
        medoid_frame_id=medoid,
        distance_scale=scale,
        max_distance=min(2.0, scale * float(limits or 4.0)),
    )
    return cluster_id


def _nearest_clusters(
    connection: Connection, space_id: int, ids: Sequence[int], assigner: Assigner | None
) -> dict[int, int]:
    if assigner is None:
        return {}
    vectors = embeddings.vectors_of(connection, space_id, ids)
    return {
        int(frame_id): place.nearest_cluster_id
        for frame_id, place in zip(vectors.ids, assigner.assign(vectors.rows), strict=True)
        if place.nearest_cluster_id is not None
    }


def _result(run_id: int, ids: Sequence[int], cluster_id: int | None) -> dict[str, Any]:
    return {
        "run": format_id(RUN, run_id),
        "frames": [format_id(FRAME, i) for i in ids],
        "cluster": format_id(CLUSTER, cluster_id),
    }


def _no_cluster(cluster_id: int) -> NotFoundError:
    return NotFoundError(
        f"There is no cluster {format_id(CLUSTER, cluster_id)}.",
        hint="`stillwatch clusters` lists them.",
    )
