"""What a human says of whole clusters: name, pin, ignore, merge. Applied at once, kept for ever.

Every word is a decision row with actor and time, in a run that `undo` takes back
(daemon/jobs/decision_undo.py). Splitting stands in daemon/jobs/cluster_split.py.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, select

from daemon.jobs.decisions import new_run
from daemon.jobs.judge import load_judge
from daemon.jobs.workshop import Workshop
from storage import cluster_members, clusters, decisions
from storage.errors import ConflictError, NotFoundError, UsageError
from storage.models import Frame
from storage.names import CLUSTER, RUN, format_id

NAME_LENGTH = 200
"""Longest name, in characters."""


def rename_cluster(
    workshop: Workshop, cluster_id: int, name: str | None, actor: str
) -> dict[str, Any]:
    """Give a cluster a name; an empty name takes it away.

    Raises:
        NotFoundError: No such cluster.
        UsageError: The name is taken or unusable.
    """
    name = (name or "").strip() or None
    if name is not None and (len(name) > NAME_LENGTH or not name.isprintable()):
        raise UsageError(f"A name has at most {NAME_LENGTH} characters, all of them printable.")
    with workshop.db.write() as connection:
        row = find_cluster(connection, cluster_id)
        taken = {n: c for c, n in clusters.names(connection).items()}
        if name is not None and taken.get(name, cluster_id) != cluster_id:
            owner = format_id(CLUSTER, taken[name])
            raise UsageError(
                f"The name {name!r} belongs to {owner} already.",
                hint=f"`stillwatch clusters rename {owner} '' --yes` would free it.",
            )
        run_id = new_run(workshop, connection, "rename", 1)
        data = {"before": row.name, "after": name}
        _decide(workshop, connection, "rename", cluster_id, run_id, actor, data)
        clusters.set_owner_facts(connection, cluster_id, name=name)
    return _result(run_id, cluster_id) | {"name": name}


def pin_cluster(workshop: Workshop, cluster_id: int, on: bool, actor: str) -> dict[str, Any]:
    """Let a cluster's id and name survive even when it is empty, or no longer.

    Raises:
        NotFoundError: No such cluster.
        ConflictError: It has ended.
    """
    with workshop.db.write() as connection:
        row = active_cluster(connection, cluster_id)
        run_id = new_run(workshop, connection, "pin", 1)
        data = {"before": row.pinned, "after": on}
        _decide(workshop, connection, "pin", cluster_id, run_id, actor, data)
        clusters.set_owner_facts(connection, cluster_id, pinned=on)
    return _result(run_id, cluster_id) | {"pinned": on}


def ignore_cluster(workshop: Workshop, cluster_id: int, on: bool, actor: str) -> dict[str, Any]:
    """Let a cluster's frames never alarm, or again; its standing place alarms end.

    Raises:
        NotFoundError: No such cluster.
        ConflictError: It has ended.
    """
    with workshop.quiet():
        with workshop.db.write() as connection:
            row = active_cluster(connection, cluster_id)
            run_id = new_run(workshop, connection, "ignore", 1)
            silenced = cluster_members.silence(connection, cluster_id) if on else []
            data = {"before": row.ignored, "after": on, "silenced": silenced}
            _decide(workshop, connection, "ignore", cluster_id, run_id, actor, data)
            clusters.set_owner_facts(connection, cluster_id, ignored=on)
        workshop.serve(load_judge(workshop))
    return _result(run_id, cluster_id) | {"ignored": on, "silenced": len(silenced)}


def merge_clusters(
    workshop: Workshop, into: int, others: Sequence[int], actor: str
) -> dict[str, Any]:
    """Make one cluster of several; the first one's id, name and settings survive.

    The faces of each pair (their medoids) must be together in every later clustering.

    Raises:
        NotFoundError: No such cluster.
        ConflictError: One of them has ended.
        UsageError: The same cluster twice, or only one.
    """
    if not others or len({into, *others}) != len(others) + 1:
        raise UsageError("Name two or more different clusters.")
    moved = 0
    with workshop.quiet():
        with workshop.db.write() as connection:
            survivor = active_cluster(connection, into)
            absorbed = [active_cluster(connection, other) for other in others]
            run_id = new_run(workshop, connection, "merge", len(others))
            for other in absorbed:
                moved += _absorb(workshop, connection, survivor, other, run_id, actor)
        workshop.serve(load_judge(workshop))
    return _result(run_id, into) | {
        "merged": [format_id(CLUSTER, other) for other in others],
        "frames": moved,
    }


def _absorb(
    workshop: Workshop,
    connection: Connection,
    survivor: Any,
    other: Any,
    run_id: int,
    actor: str,
) -> int:
    """Move one cluster into another; returns the number of frames that moved."""
    now = workshop.wall()
    silenced = cluster_members.silence(connection, other.id) if survivor.ignored else []
    anchors = [_face(connection, survivor), _face(connection, other)]
    moved = cluster_members.absorb(connection, survivor.id, other.id)
    data = {
        "clusters": [other.id],
        # an empty cluster has no face that could be linked
        "anchors": [frame for frame in anchors if frame is not None],
        "moved": moved,
        "silenced": silenced,
    }
    _decide(workshop, connection, "merge", survivor.id, run_id, actor, data)
    clusters.retire(connection, [other.id], now, merged_into=survivor.id)
    frames = sum(last - first + 1 for first, last in moved)
    clusters.add_event(
        connection,
        "cluster_merged",
        now,
        cluster_id=other.id,
        run_id=run_id,
        data={"into": survivor.id, "frames": frames},
    )
    return frames


def _face(connection: Connection, row: Any) -> int | None:
    """The medoid while it is a member, else the oldest member, else None."""
    query = (
        select(Frame.id)
        .where(Frame.cluster_id == row.id)
        .order_by(Frame.id != row.medoid_frame_id, Frame.id)
        .limit(1)
    )
    found = connection.execute(query).scalar()
    return None if found is None else int(found)


def find_cluster(connection: Connection, cluster_id: int) -> Any:
    """The row of a cluster.

    Raises:
        NotFoundError: There is none.
    """
    row = clusters.find(connection, cluster_id)
    if row is None:
        raise NotFoundError(
            f"There is no cluster {format_id(CLUSTER, cluster_id)}.",
            hint="`stillwatch clusters` lists them.",
        )
    return row


def active_cluster(connection: Connection, cluster_id: int) -> Any:
    """The row of a cluster that has not ended.

    Raises:
        NotFoundError: There is none.
        ConflictError: It has ended.
    """
    row = find_cluster(connection, cluster_id)
    if row.state != "active":
        own = format_id(CLUSTER, cluster_id)
        heir = format_id(CLUSTER, row.merged_into)
        raise ConflictError(
            f"{own} has ended." if heir is None else f"{own} was merged into {heir}.",
            hint=f"`stillwatch clusters history {own}` tells when.",
        )
    return row


def _decide(
    workshop: Workshop,
    connection: Connection,
    kind: str,
    cluster_id: int,
    run_id: int,
    actor: str,
    data: dict[str, Any],
) -> None:
    decisions.add(
        connection,
        kind,
        actor=actor,
        at=workshop.wall(),
        run_id=run_id,
        cluster_id=cluster_id,
        data=data,
    )


def _result(run_id: int, cluster_id: int) -> dict[str, Any]:
    return {"run": format_id(RUN, run_id), "cluster": format_id(CLUSTER, cluster_id)}
