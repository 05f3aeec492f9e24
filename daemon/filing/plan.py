"""Where a frame belongs on disk, and how much an automatic run may change: pure functions.

Duplicates go to `stillwatch/duplicates/<keeper stem>-<keeper id>/`, scene novelties to
`stillwatch/novel/<date>/`, assigned frames (place novelties with them) to
`stillwatch/clusters/<name or id>/<date>/`, unless the owner set other templates. Every other state
stays where it is, also when it was filed before: after a recluster only frames whose cluster
changed move.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import datetime, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from daemon.filing.target_names import (
    available_name,
    clean_name,
    file_name,
    folder_stem,
    join,
    suffixed_name,
)
from daemon.messages import FilingEntry
from daemon.path_template import DEFAULT_TEMPLATES, FolderTemplate, FolderTemplates
from storage.filing_rows import FilingFrame
from storage.names import CLUSTER, FRAME, format_id
from storage.root_guard import OWN_FOLDER, is_own_path

Taken = Callable[[int, bytes], bool]
"""Whether (camera id, path) is taken, on disk or by a row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Brake:
    """Filed frames of a camera that an automatic run would move again, too many to go unasked."""

    camera_id: int
    would_move: int
    on_disk: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Batches:
    """What may be done, as one run a batch, and which cameras are braked."""

    batches: Sequence[Sequence[FilingEntry]]
    brakes: Sequence[Brake]


def plan_filing(
    frames: Iterable[FilingFrame],
    clusters: Mapping[int, str | None],
    *,
    taken: Taken,
    taken_back: Set[tuple[int, bytes]] = frozenset(),
    templates: FolderTemplates = DEFAULT_TEMPLATES,
) -> list[FilingEntry]:
    """The file operations that put frames where they belong, in the order of `frames`.

    Args:
        frames: Frames on disk; read once.
        clusters: Cluster id -> the owner's name.
        taken: Whether a place is taken already; asked for every new name.
        taken_back: (frame id, folder) that an undo took back; left out.
        templates: The owner's folders.
    """
    labels = cluster_labels(clusters)
    planned: set[tuple[int, bytes]] = set()
    entries = []
    for frame in frames:
        folder = target_folder(frame, labels, templates)
        if folder is None or frame.sha256 is None or (frame.id, folder) in taken_back:
            continue
        if filed_in(frame) == folder:
            continue
        target = target_path(
            frame, folder, lambda camera, path: (camera, path) in planned or taken(camera, path)
        )
        planned.add((frame.camera_id, target))
        entries.append(_entry(frame, frame.sha256, target))
    return entries


def _entry(frame: FilingFrame, sha256: bytes, target: bytes) -> FilingEntry:
    duplicate = frame.state.endswith("_duplicate")
    cluster = format_id(CLUSTER, frame.cluster_id)
    if duplicate:
        reason = f"{frame.state.replace('_', ' ')} of {format_id(FRAME, frame.duplicate_of)}"
    else:
        novel = frame.state == "novel" and frame.novelty != "place"
        reason = "novel" if novel or cluster is None else f"in cluster {cluster}"
    return FilingEntry(
        frame_id=frame.id,
        camera_id=frame.camera_id,
        source=filed_place(frame) or frame.path,
        target=target,
        sha256=sha256,
        size=frame.size or 0,
        reason=reason,
        keeper_id=frame.duplicate_of if duplicate else None,
    )


def target_folder(
    frame: FilingFrame,
    labels: Mapping[int, bytes],
    templates: FolderTemplates = DEFAULT_TEMPLATES,
) -> bytes | None:
    """The folder below the root where a frame belongs; None: it stays where it is.

    A duplicate that is one file with its keeper (two names of one inode) stays too: to set it
    aside would free nothing, and to delete it later could delete the keeper.
    """
    if frame.state in ("exact_duplicate", "near_duplicate"):
        if frame.duplicate_of is None or frame.keeper_path is None or frame.is_keeper:
            return None
        name = frame.keeper_path.rpartition(b"/")[2]
        keeper = folder_stem(name, f"{FRAME}{frame.duplicate_of}")
        return _filled_in(templates.duplicate, templates, frame, {"keeper": keeper})
    in_cluster = frame.cluster_id is not None and frame.cluster_id in labels
    if frame.state == "novel" and not (frame.novelty == "place" and in_cluster):
        return _filled_in(templates.novel, templates, frame, {})
    if frame.state in ("novel", "assigned") and frame.cluster_id is not None and in_cluster:
        cluster = {
            "cluster": labels[frame.cluster_id],
            "cluster_id": f"{CLUSTER}{frame.cluster_id}".encode(),
        }
        return _filled_in(templates.cluster, templates, frame, cluster)
    return None


def _filled_in(
    template: FolderTemplate,
    templates: FolderTemplates,
    frame: FilingFrame,
    own: dict[str, bytes],
) -> bytes:
    moment = filing_moment(frame)
    values = {
        "date": moment.date().isoformat().encode(),
        "year": b"%04d" % moment.year,
        "month": b"%02d" % moment.month,
        "day": b"%02d" % moment.day,
        "hour": b"%02d" % moment.hour,
        "camera": clean_name(frame.camera, "camera"),
        "state": frame.state.encode(),
    }
    return join(OWN_FOLDER, template.folder(values | own, templates.reserved_for(template)))


def filed_place(frame: FilingFrame) -> bytes | None:
    """Where below stillwatch's own folder the frame, or else its link, is; None: not filed."""
    return frame.path if is_own_path(frame.path) else frame.link


def filed_in(frame: FilingFrame) -> bytes | None:
    """The folder of `filed_place`."""
    place = filed_place(frame)
    return None if place is None else place.rpartition(b"/")[0]


def target_path(frame: FilingFrame, folder: bytes, taken: Taken) -> bytes:
    """The delivered name in `folder`; with the frame's id, then a number, where that is taken."""
    name = file_name(frame.original_path.rpartition(b"/")[2])
    own = frame.camera_id
    if taken(own, join(folder, name)):
        name = suffixed_name(name, b"-%s%d" % (FRAME.encode(), frame.id))
        name = available_name(name, lambda candidate: taken(own, join(folder, candidate)))
    return join(folder, name)


def cluster_labels(clusters: Mapping[int, str | None]) -> dict[int, bytes]:
    """Cluster id -> its folder's name: the cleaned name, or the id; no two are equal.

    A name that cleaning makes equal to an older cluster's, or that reads as another cluster's
    id, gets the own id appended.
    """
    used = {f"{CLUSTER}{number}".encode() for number in clusters}
    labels = {}
    for number, name in sorted(clusters.items()):
        own = f"{CLUSTER}{number}"
        label = clean_name(name or own, own)
        choices = (label, folder_stem(label, own), own.encode())
        labels[number] = next(c for c in choices if c == own.encode() or c.lower() not in used)
        used.add(labels[number].lower())
    return labels


def filing_moment(frame: FilingFrame) -> datetime:
    """The time of capture where the camera stands, or else of arrival in the camera's zone."""
    zone = _zone(frame.timezone)
    if frame.captured_at is not None:
        moment = datetime.fromisoformat(frame.captured_at)
        return moment.astimezone(zone) if zone is not None else moment
    return datetime.fromtimestamp(frame.arrived_at, zone)


def _zone(name: str | None) -> tzinfo | None:
    try:
        return ZoneInfo(name) if name else None
    except (ZoneInfoNotFoundError, ValueError):
        return None


def apply_brake(
    entries: Sequence[FilingEntry],
    on_disk: Mapping[int, int],
    *,
    share: float,
    files: int,
    explicit: bool,
) -> Batches:
    """Split a plan into runs of at most `files` entries; hold back what would surprise.

    A first filing moves a frame that lies where the camera put it: switching filing on asks for
    exactly that, once a frame, so it is only cut into batches. Moving frames again that were
    filed before is what a recluster or dedup gone wrong would do: where that is more than
    `share` of a camera's frames on disk or more than `files` in all, none of that camera's
    filed frames move, unless the owner asked (`explicit`).

    Args:
        entries: The plan.
        on_disk: Camera id -> frames on disk.
        share: `filing.brake_share`.
        files: `filing.brake_files`.
        explicit: The owner asked for this very run.
    """
    again: dict[int, int] = {}
    for entry in entries:
        if is_own_path(entry.source):
            again[entry.camera_id] = again.get(entry.camera_id, 0) + 1
    brakes = [
        Brake(camera_id=camera, would_move=count, on_disk=on_disk.get(camera, 0))
        for camera, count in sorted(again.items())
        if not explicit and (count > files or count > share * on_disk.get(camera, 0))
    ]
    braked = {brake.camera_id for brake in brakes}
    allowed = [e for e in entries if not (e.camera_id in braked and is_own_path(e.source))]
    batches = [allowed[start : start + files] for start in range(0, len(allowed), files)]
    return Batches(batches=batches, brakes=brakes)
