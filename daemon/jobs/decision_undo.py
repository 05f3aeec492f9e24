"""Taking back what a human said: one inverse for every kind of decision.

What later clusterings moved elsewhere stays there; what is as the decision left it is restored.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from sqlalchemy import Connection, select

from daemon.jobs.judge import load_judge
from daemon.jobs.workshop import Workshop
from storage import cameras, cluster_members, clusters, decisions, embeddings, frames, runs
from storage.duplicate_runs import break_chains
from storage.duplicate_words import APART, KEEP, KEEPER, verdicts_of
from storage.errors import ConflictError
from storage.models import Cluster
from storage.names import CLUSTER, RUN, format_id

_RESHAPING: Final = ("merge", "split")
_SUPERSEDED_BY: Final[Mapping[str, tuple[str, ...]]] = {
    "rename": ("rename",),
    "pin": ("pin",),
    "ignore": ("ignore",),
    "merge": _RESHAPING,
    "split": _RESHAPING,
}
"""Which later decisions on the same cluster must be undone first."""


def undo_decisions(workshop: Workshop, run_id: int) -> dict[str, Any]:
    """Take back the decisions of one run; a second time does nothing.

    Raises:
        ConflictError: A later decision touched the same cluster.
    """
    with workshop.files, workshop.quiet():  # some of them hold verdicts on duplicates
        with workshop.db.write() as connection:
            made = decisions.of_run(connection, run_id)
            for row in made:
                _refuse_if_superseded(connection, row, run_id)
            restored = sum(_UNDO[row.kind](workshop, connection, row) for row in made)
            _drop_seeds(workshop, connection, run_id)
            decisions.mark_undone(connection, run_id, workshop.wall())
            runs.set_state(connection, run_id, "undone")
        workshop.serve(load_judge(workshop))
    return {"run": format_id(RUN, run_id), "restored": restored, "skipped": 0, "entries": []}


def _refuse_if_superseded(connection: Connection, row: Any, run_id: int) -> None:
    kinds = _SUPERSEDED_BY.get(row.kind)
    if kinds is None:
        return
    touched = [row.cluster_id, *(row.data or {}).get("clusters", ())]
    later = decisions.later_on(connection, row.id, run_id, kinds, touched)
    if later is not None:
        word = {"rename": "renamed", "pin": "pinned or unpinned", "merge": "merged"}
        raise ConflictError(
            f"{format_id(CLUSTER, row.cluster_id)} was {word.get(later.kind, later.kind)} again"
            f" after {format_id(RUN, run_id)}, in {format_id(RUN, later.run_id)}.",
            hint=f"`stillwatch undo {format_id(RUN, later.run_id)} --yes` first.",
        )


def _undo_place(workshop: Workshop, connection: Connection, row: Any) -> int:
    frames.update_frame(connection, int(row.frame_id), **row.data["before"])
    if row.data.get("weight"):
        embeddings.set_weight(
            connection, row.data["space"], [int(row.frame_id)], row.data["weight"]
        )
    return 1


def _undo_rename(workshop: Workshop, connection: Connection, row: Any) -> int:
    before = row.data["before"]
    owner = {name: number for number, name in clusters.names(connection).items()}.get(before)
    if owner is not None and owner != row.cluster_id:
        raise ConflictError(
            f"The name {before!r} belongs to {format_id(CLUSTER, owner)} by now.",
            hint=f"`stillwatch clusters rename {format_id(CLUSTER, owner)} '' --yes` frees it.",
        )
    clusters.set_owner_facts(connection, row.cluster_id, name=before)
    return 1


def _undo_fact(fact: str) -> Callable[[Workshop, Connection, Any], int]:
    def undo(workshop: Workshop, connection: Connection, row: Any) -> int:
        clusters.set_owner_facts(connection, row.cluster_id, **{fact: row.data["before"]})
        silenced = row.data.get("silenced", ())
        cluster_members.alarm_again(connection, row.cluster_id, silenced)
        return 1

    return undo


def _undo_merge(workshop: Workshop, connection: Connection, row: Any) -> int:
    into = clusters.find(connection, row.cluster_id)
    (absorbed,) = row.data["clusters"]
    clusters.revive(connection, absorbed, into.space_id)
    moved = cluster_members.give_back(connection, row.cluster_id, absorbed, row.data["moved"])
    cluster_members.alarm_again(connection, absorbed, row.data["silenced"])
    return moved


def _undo_split(workshop: Workshop, connection: Connection, row: Any) -> int:
    parts = row.data["clusters"]
    moved = sum(cluster_members.move_all(connection, part, row.cluster_id) for part in parts)
    clusters.retire(connection, parts, workshop.wall(), merged_into=row.cluster_id)
    if clusters.find(connection, row.cluster_id).state != "active":
        clusters.revive(connection, row.cluster_id, clusters.find(connection, parts[0]).space_id)
    return moved


def _undo_verdicts(workshop: Workshop, connection: Connection, row: Any) -> int:
    """Verdicts as they were before a word on duplicates; what no longer holds is judged again.

    A frame that something else has changed since, or whose keeper is gone, stays kept until the
    judge has looked at it again.
    """
    facts = row.data or {}
    befores = {int(i): before for i, before in facts.get("befores", {}).items()}
    restored = 0
    for frame_id, before in [*befores.items(), (int(row.frame_id), facts.get("before"))]:
        if before is None:  # it came back from the trash; nobody knows what it would be now
            frames.update_frame(connection, frame_id, judged=False)
            continue
        owner = before["duplicate_of"]
        now = verdicts_of(connection, [frame_id])[frame_id]
        untouched = now["duplicate_of"] in (None, int(row.frame_id))
        if not untouched or (owner is not None and not _vouches(connection, owner, befores)):
            frames.update_frame(connection, frame_id, judged=False)
            continue
        frames.update_frame(connection, frame_id, **before)
        restored += 1
    if row.kind == KEEPER:
        frames.update_frame(connection, int(row.frame_id), run_settled=False)
        for camera in cameras.list_cameras(connection):
            break_chains(connection, camera.id)  # frames that joined the keeper since
    return restored


def _vouches(connection: Connection, keeper_id: int, restored: Mapping[int, Any]) -> bool:
    """Whether a keeper is kept on disk, or becomes a kept frame by this very undo."""
    if not frames.is_here(connection, keeper_id):
        return False
    if keeper_id in restored:
        return bool(restored[keeper_id]["duplicate_of"] is None)
    return verdicts_of(connection, [keeper_id])[keeper_id]["duplicate_of"] is None


_UNDO: Final[Mapping[str, Callable[[Workshop, Connection, Any], int]]] = {
    "accept": _undo_place,
    "dismiss": _undo_place,
    "rename": _undo_rename,
    "pin": _undo_fact("pinned"),
    "ignore": _undo_fact("ignored"),
    "merge": _undo_merge,
    "split": _undo_split,
    KEEP: _undo_verdicts,
    APART: _undo_verdicts,
    KEEPER: _undo_verdicts,
}


def _drop_seeds(workshop: Workshop, connection: Connection, run_id: int) -> None:
    """Retire the cluster that this run seeded unless a clustering has filled it since."""
    seeded = connection.execute(
        select(Cluster.id).where(Cluster.created_run_id == run_id, Cluster.state == "active")
    ).scalars()
    for cluster_id in list(seeded):
        if cluster_members.count(connection, cluster_id) == 0:
            clusters.retire(connection, [cluster_id], workshop.wall())
