"""The rules that database and caches must keep by themselves: I1 of what was deleted, I4 to I7."""

import re
from pathlib import Path
from typing import Any, Final

import numpy as np
from sqlalchemy import Connection, func, select
from sqlalchemy.orm import aliased

from daemon.violations import Progress, Violation
from storage import embeddings, meta, runs, spaces
from storage.index_files import index_damage
from storage.models import Embedding, Frame, JournalEntry, Signature, Space
from storage.names import FRAME, RUN, format_id, printable_path
from storage.reading import KNOWN_REVISION
from storage.root_guard import OWN_FOLDER, is_own_path
from storage.snapshot_files import snapshot_damage
from storage.soundness import fault_of
from storage.vector_index import INDEX_NAME, VectorIndex, id_digest

_KEEPER_DIGEST: Final = re.compile(r"its keeper f[0-9]+ had SHA-256 [0-9a-f]{64}")
_PNG: Final = b"\x89PNG\r\n\x1a\n"
RESTORE: Final = "`stillwatch doctor` leads through the recovery"


def deleted_frames(connection: Connection) -> list[Violation]:
    """What was deleted has a finished record with its own hash and its keeper's."""
    record = aliased(JournalEntry)
    query = (
        select(Frame.id, Frame.sha256, record.id.label("record"), record.sha256.label("deleted"))
        .add_columns(record.note)
        .outerjoin(
            record,
            (record.frame_id == Frame.id)
            & (record.operation == "delete")
            & (record.state == "done"),
        )
        .where(Frame.presence == "pruned")
        .order_by(Frame.id)
    )
    found = []
    for row in connection.execute(query):
        label = f"{format_id(FRAME, row.id)} counts as deleted by the policy, but the journal"
        if row.record is None:
            text = f"{label} has no record; look for it in a backup of yours"
        elif row.deleted != row.sha256:
            text = f"{label} records the end of other content; look for it in a backup of yours"
        elif not _KEEPER_DIGEST.search(row.note or ""):
            text = f"{label} does not say which keeper vouched for it"
        else:
            continue
        found.append(Violation(rule="I1", text=text))
    return found


def vectors(connection: Connection, progress: Progress) -> list[Violation]:
    """Every vector is finite and of its space's length; signatures are what they claim to be."""
    found = []
    dims = {int(row.id): row for row in connection.execute(select(Space.id, Space.dim, Space.name))}
    query = select(Embedding.frame_id, Embedding.space_id, Embedding.vector)
    result = connection.execution_options(yield_per=2000).execute(query)
    total, done = _count_vectors(connection), 0
    for part in result.partitions():
        for row in part:
            space = dims[row.space_id]
            if not _is_sound(bytes(row.vector), space.dim):
                text = (
                    f"{format_id(FRAME, row.frame_id)}: its vector of {space.name} is damaged;"
                    " `stillwatch verify --repair --yes` has it computed again"
                )
                found.append(_of_space("vector", text, row))
        done += len(part)
        progress("checking vectors", done, total)
    return found + _signatures(connection) + _gaps(connection)


def _is_sound(vector: bytes, dim: int) -> bool:
    if len(vector) != 2 * dim:
        return False
    numbers = np.frombuffer(vector, dtype="<f2")
    return bool(np.isfinite(numbers).all() and numbers.any())


def _signatures(connection: Connection) -> list[Violation]:
    found = []
    for row in connection.execution_options(yield_per=200).execute(select(Signature.__table__)):
        tiles = None if row.tiles is None else len(row.tiles)
        shape = row.tile_shape
        expected = None if shape is None else int(np.prod(shape))
        if bytes(row.grey[:8]) != _PNG or tiles != expected:
            text = (
                f"{format_id(FRAME, row.frame_id)}: what the change test keeps of it is damaged;"
                " `stillwatch verify --repair --yes` has it computed again"
            )
            found.append(_of_space("signature", text, row))
    return found


def _gaps(connection: Connection) -> list[Violation]:
    """Frames without a vector in the space that serves; where the encoder failed it says why."""
    space = spaces.serving_space(connection)
    if space is None:
        return []
    told = spaces.known_gaps(connection, space.id)
    return [
        Violation(
            rule="I4",
            text=f"{format_id(FRAME, i)} has no vector of {space.name}, and no reason is known;"
            " the daemon computes it when it runs",
            kind="no_vector",
            number=i,
            space_id=space.id,
        )
        for i in spaces.lacking(connection, space.id).tolist()
        if i not in told
    ]


def _of_space(kind: Any, text: str, row: Any) -> Violation:
    return Violation(rule="I4", text=text, kind=kind, number=row.frame_id, space_id=row.space_id)


def caches(connection: Connection, state_dir: Path) -> list[Violation]:
    """An index that claims to fit the database must fit; an outdated one never serves."""
    found = []
    damage = _index_damage(connection, state_dir / INDEX_NAME)
    if damage is not None:
        text = f"the index is damaged ({damage}); the next start rebuilds it from the database"
        found.append(Violation(rule="I4", text=text, kind="index"))
    damage = snapshot_damage(state_dir / "neighbours")
    if damage is not None:
        text = (
            f"the snapshot of `similar` is damaged ({damage}); it compares all frames until the"
            " next recluster rebuilds it"
        )
        found.append(Violation(rule="I4", text=text, kind="neighbours"))
    return found


def _index_damage(connection: Connection, path: Path) -> str | None:
    """Why the index cannot serve although it says that it fits; None where it may, or is none."""
    damage = index_damage(path)
    space = spaces.serving_space(connection)
    if damage is not None or space is None:
        return damage
    ids, _, _ = embeddings.reference_frames(connection, space.id)
    generation, digest = int(meta.get(connection, "generation", 0)), id_digest(ids)
    claims = VectorIndex.claims(path, generation, digest)
    broken = claims and VectorIndex.read(path, generation, digest) is None
    return f"{path} does not hold what it says" if broken else None


def database(connection: Connection) -> list[Violation]:
    """SQLite's own checks of every page, index and foreign key; columns and states of rows."""
    found = []
    for row in connection.exec_driver_sql("PRAGMA integrity_check"):
        text = str(row[0])
        if text == "ok":
            continue
        if "index" in text:
            # the table is whole, only the order kept beside it is not: it can be made anew
            remedy = "`stillwatch verify --repair --yes` rebuilds the index"
            found.append(Violation(rule="I5", text=f"{text}; {remedy}", kind="reindex"))
        else:
            found.append(Violation(rule="I5", text=f"{text}; {RESTORE}"))
    fault = fault_of(connection.exec_driver_sql, KNOWN_REVISION)
    if fault is not None and not found:
        found.append(Violation(rule="I5", text=f"{fault}; {RESTORE}"))
    return found


def unfinished(connection: Connection, *, daemon: bool) -> list[Violation]:
    """Open intents, runs that were interrupted, and duplicates whose keeper is no kept frame.

    Args:
        connection: Of a read transaction.
        daemon: A daemon is running: what is open may be under way.
    """
    found = []
    if not daemon:
        columns = (JournalEntry.id, JournalEntry.operation, JournalEntry.source)
        query = select(*columns).where(JournalEntry.state == "intent").order_by(JournalEntry.id)
        for row in connection.execute(query):
            what = f"{row.operation.replace('_', ' ')} of {printable_path(row.source)}"
            text = (
                f"journal row {row.id} is unfinished ({what}); the next start finishes it or takes"
                " it back"
            )
            found.append(Violation(rule="I6", text=text, kind="intent", number=row.id))
        for run in runs.unfinished(connection):
            name = format_id(RUN, run["id"])
            text = f"{run['kind']} run {name} was interrupted; the next start ends it"
            found.append(Violation(rule="I6", text=text, kind="run", number=run["id"]))
    return found + _without_keeper(connection)


def _without_keeper(connection: Connection) -> list[Violation]:
    keeper = aliased(Frame)
    query = (
        select(Frame.id, Frame.duplicate_of)
        .outerjoin(keeper, keeper.id == Frame.duplicate_of)
        .where(
            Frame.duplicate_of.is_not(None),
            Frame.presence == "here",
            (keeper.id.is_(None))
            | (keeper.presence != "here")
            | (
                (keeper.duplicate_of.is_not(None)) & (Frame.duplicate_kind == keeper.duplicate_kind)
            ),
        )
        .order_by(Frame.id)
    )
    found = []
    for row in connection.execute(query):
        own, lost = format_id(FRAME, row.id), format_id(FRAME, row.duplicate_of)
        text = (
            f"{own} is a duplicate of {lost}, which is not kept on disk;"
            " `stillwatch verify --repair --yes` lets it be judged again"
        )
        found.append(Violation(rule="I6", text=text, kind="keeper", number=row.id))
    return found


def places(connection: Connection) -> list[Violation]:
    """No path in the database leads out of its camera's folder, and no move left our own."""
    found = []
    for row in connection.execution_options(yield_per=2000).execute(
        select(JournalEntry.id, JournalEntry.source, JournalEntry.target)
    ):
        source, target = bytes(row.source), bytes(row.target)
        for path in (source, target):
            if _leads_out(path):
                text = f"journal row {row.id} names {printable_path(path)}, outside the folder"
                found.append(Violation(rule="I7", text=f"{text}; {RESTORE}"))
        if not is_own_path(source) and not is_own_path(target):
            text = (
                f"journal row {row.id} moved {printable_path(source)} elsewhere than into"
                f" {OWN_FOLDER.decode()}/; look at {printable_path(target)}"
            )
            found.append(Violation(rule="I7", text=text))
    for frame_id, path in connection.execution_options(yield_per=2000).execute(
        select(Frame.id, Frame.path)
    ):
        if _leads_out(bytes(path)):
            text = f"{format_id(FRAME, frame_id)} is recorded at {printable_path(path)}, outside"
            found.append(Violation(rule="I7", text=f"{text} the folder; {RESTORE}"))
    return found


def _leads_out(path: bytes) -> bool:
    return path.startswith(b"/") or b".." in path.split(b"/")


def _count_vectors(connection: Connection) -> int:
    return int(connection.execute(select(func.count()).select_from(Embedding)).scalar_one())
