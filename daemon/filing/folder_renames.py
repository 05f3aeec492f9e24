"""A cluster that the owner renamed: its folder is renamed, whatever lies in it goes along.

One rename instead of a move for each file, so it does not count for the brake. It is done where
every filed frame in the folder either belongs to the new one or has no folder of its own, and
where nothing has the new name yet; else the frames move one by one, like after a recluster.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Set
from dataclasses import dataclass

from daemon.filing.apply import ApplyResult, Clock, Moved
from daemon.filing.plan import cluster_labels, filed_in, filed_place, target_folder
from daemon.filing.target_names import clean_name, folder_stem
from daemon.path_template import FolderTemplates
from storage import plan_entries, runs
from storage.engine import Database
from storage.errors import FilingError, RootOfflineError
from storage.file_facts import exists
from storage.file_moves import remove_empty_folders
from storage.filing_rows import (
    FilingFrame,
    cluster_names,
    former_names,
    frames_to_file,
    taken_back,
)
from storage.journal_folders import FolderIntent, rename_folder
from storage.names import CLUSTER
from storage.root_guard import OWN_FOLDER, GuardedRoot, ensure_marker, load_roots


@dataclass(frozen=True, slots=True)
class FolderRename:
    """A folder of a camera, and the name that it gets."""

    camera_id: int
    source: bytes
    target: bytes


def plan_folder_renames(
    frames: Iterable[FilingFrame],
    clusters: Mapping[int, str | None],
    former: Mapping[int, Collection[str | None]],
    templates: FolderTemplates,
    back: Set[tuple[int, bytes]] = frozenset(),
) -> list[FolderRename]:
    """The folders that follow a cluster's new name.

    Args:
        frames: Frames on disk whose state has a folder; read once.
        clusters: Cluster id -> the owner's name.
        former: Cluster id -> the names that it had before.
        templates: The owner's folders.
        back: (frame id, folder) that an undo took back: not repeated.
    """
    labels = cluster_labels(clusters)
    old = {cluster: _former_labels(cluster, names) for cluster, names in former.items()}
    wanted: dict[tuple[int, bytes], set[bytes]] = {}
    at_home: dict[int, set[bytes]] = {}
    for frame in frames:
        folder, target = filed_in(frame), target_folder(frame, labels, templates)
        if folder is None or target is None:
            continue
        if folder == target or (frame.id, target) in back:
            at_home.setdefault(frame.camera_id, set()).add(folder)
        elif frame.cluster_id in old and folder in {
            target_folder(frame, {frame.cluster_id: label}, templates)
            for label in old[frame.cluster_id]
        }:
            source, renamed = _difference(folder, target)
            wanted.setdefault((frame.camera_id, source), set()).add(renamed)
    return [
        FolderRename(camera, source, *targets)
        for (camera, source), targets in sorted(wanted.items())
        if len(targets) == 1 and not any(_within(home, source) for home in at_home.get(camera, ()))
    ]


def _former_labels(cluster: int, names: Collection[str | None]) -> set[bytes]:
    own = f"{CLUSTER}{cluster}"
    cleaned = {clean_name(name or own, own) for name in names}
    return cleaned | {folder_stem(label, own) for label in cleaned} | {own.encode()}


def _within(folder: bytes, above: bytes) -> bool:
    return folder == above or folder.startswith(above + b"/")


def _difference(source: bytes, target: bytes) -> tuple[bytes, bytes]:
    """Both folders without the levels at the end that are the same: `a/cats` and `a/dogs`."""
    one, other = source.split(b"/"), target.split(b"/")
    while one[-1] == other[-1] and len(one) > 2 and len(other) > 2:
        one.pop()
        other.pop()
    return b"/".join(one), b"/".join(other)


def rename_folders(
    db: Database,
    templates: FolderTemplates,
    *,
    clock: Clock,
    should_stop: Callable[[], bool] = lambda: False,
    cameras: Collection[int] | None = None,
) -> list[ApplyResult]:
    """Rename the folders of clusters that the owner renamed; each is a run that `undo` takes.

    Args:
        db: The database; the caller is its one writer.
        templates: The owner's folders.
        clock: Wall-clock seconds.
        should_stop: Asked before each folder.
        cameras: Ids of the cameras; None: all.

    Raises:
        NotDurableError: The disk failed to confirm; `recover` settles it later.
    """
    with db.read() as connection:
        former = former_names(connection)
        if not former:
            return []
        roots = load_roots(connection)
        chosen = [i for i, r in roots.items() if r.writable and (cameras is None or i in cameras)]
        planned = plan_folder_renames(
            frames_to_file(connection, chosen),
            cluster_names(connection),
            former,
            templates,
            taken_back(connection),
        )
        inside = _inside(frames_to_file(connection, chosen), planned)
    done = []
    for rename in planned:
        if should_stop():
            break
        moved = inside[rename]
        result = _rename_one(db, roots[rename.camera_id], rename, moved, clock)
        if result is not None:
            done.append(result)
    return done


def _inside(
    frames: Iterable[FilingFrame], renames: Collection[FolderRename]
) -> dict[FolderRename, list[Moved]]:
    """The filed frames (or links) below each folder, and where they come to lie."""
    found: dict[FolderRename, list[Moved]] = {rename: [] for rename in renames}
    if not renames:
        return found
    for frame in frames:
        place = filed_place(frame)
        if place is None:
            continue
        for rename in renames:
            if rename.camera_id == frame.camera_id and _within(place, rename.source):
                target = rename.target + place[len(rename.source) :]
                found[rename].append(Moved(frame_id=frame.id, source=place, target=target))
    return found


def _rename_one(
    db: Database, root: GuardedRoot, rename: FolderRename, moved: list[Moved], clock: Clock
) -> ApplyResult | None:
    """None where it cannot be done at once: the frames move one by one then."""
    shown = rename.target.removeprefix(OWN_FOLDER + b"/").decode("utf-8", "replace")
    entries = [
        plan_entries.NewEntry(
            frame_id=m.frame_id, target=m.target, reason=f"folder renamed to {shown}"
        )
        for m in moved
    ]
    try:
        root = ensure_marker(db, root)
        with root.opened() as fd:
            if exists(fd, rename.target):
                return None
        with db.write() as connection:
            run_id = runs.create_run(connection, "folders", entries, now=clock())
            runs.start_run(connection, run_id, clock())
        try:
            intent = FolderIntent(
                frame_id=moved[0].frame_id,
                source=rename.source,
                target=rename.target,
                run_id=run_id,
            )
            rename_folder(db, root, intent, clock())
        finally:
            with db.write() as connection:
                state = runs.finish_run(connection, run_id, clock())
        with root.opened() as fd:
            remove_empty_folders(fd, rename.source)
    except (FilingError, RootOfflineError, OSError):
        return None
    return ApplyResult(run_id=run_id, state=state, applied=len(moved), moved=moved)
