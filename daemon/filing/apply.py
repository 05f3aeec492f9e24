"""Apply a plan: every entry is checked again, journalled, moved, noted; a failed one is skipped."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from sqlalchemy import RowMapping

from daemon.filing.marked_roots import MarkedRoots
from daemon.filing.plan import cluster_labels, filed_in, filed_place, target_folder, target_path
from daemon.filing.sidecars import Companions, SidecarFinder, clashes
from daemon.filing.target_names import join
from daemon.path_template import DEFAULT_TEMPLATES, FolderTemplates
from storage import plan_entries, runs
from storage.engine import Database
from storage.errors import (
    ChangedFileError,
    ConflictError,
    FilingError,
    OneFileError,
    RootOfflineError,
)
from storage.file_facts import FileFacts, examine, exists, split, stat_facts
from storage.file_moves import remove_empty_folders
from storage.filing_rows import FilingFrame, cluster_names, frame_to_file, path_recorded
from storage.journal import Intent, Operation, perform, recover
from storage.names import FRAME, RUN, format_id, printable_path
from storage.root_guard import GuardedRoot, is_own_path, load_roots

Mode = Literal["move", "hardlink", "copy", "none"]
Clock = Callable[[], float]
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """One file operation that was done; paths below the camera's root."""

    frame_id: int
    source: bytes
    target: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped:
    """One entry that was not done, and why in words."""

    frame_id: int
    path: bytes | None
    reason: str


@dataclass(slots=True, kw_only=True)
class ApplyResult:
    """What applying a run did; `applied` counts also what was in its place already."""

    run_id: int
    state: str = "planned"
    applied: int = 0
    bytes: int = 0
    moved: list[Moved] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    left: list[Skipped] = field(default_factory=list)
    """What stays by rule, no failure: shared sidecar files, duplicates that are their keeper."""

    @property
    def partly(self) -> bool:
        """Whether an entry was skipped (exit code 3)."""
        return bool(self.skipped)


def apply_entries(
    db: Database,
    run_id: int,
    *,
    mode: Mode,
    clock: Clock,
    progress: Progress = lambda _done, _total: None,
    should_stop: Callable[[], bool] = lambda: False,
    templates: FolderTemplates = DEFAULT_TEMPLATES,
) -> ApplyResult:
    """Carry out the entries of a dedup or filing run that are not applied yet.

    Args:
        db: The database; the caller is its one writer.
        run_id: The run.
        mode: What to do with files that are not filed yet; filed ones always move.
        clock: Wall-clock seconds.
        progress: Called with (entries done, entries in all).
        should_stop: Asked before each entry; what is left stays planned.
        templates: The owner's folders, for entries whose place is chosen now.

    Raises:
        NotFoundError: No such run.
        ConflictError: The run moves no files, was discarded, or filing is switched off.
        NotDurableError: The disk failed to confirm; the run stops, `recover` settles it later.
    """
    with db.read() as connection:
        roots = load_roots(connection)
        _require_applicable(runs.get_run(connection, run_id), mode)
    recover(db, roots, clock())
    with db.read() as connection:
        entries = plan_entries.entries_of(connection, run_id, "planned", "skipped", "undone")
        labels = cluster_labels(cluster_names(connection))
    with db.write() as connection:
        runs.start_run(connection, run_id, clock())
    result = ApplyResult(run_id=run_id)
    applier = _Applier(db, run_id, mode, clock, roots, labels, templates)
    try:
        for number, entry in enumerate(entries):
            if should_stop():
                break
            _apply_one(db, applier, entry, result)
            progress(number + 1, len(entries))
    finally:
        with db.write() as connection:
            result.state = runs.finish_run(connection, run_id, clock())
    return result


def _require_applicable(run: RowMapping, mode: Mode) -> None:
    name = format_id(RUN, run["id"])
    if run["kind"] not in ("dedup", "filing") or run["digest"] is None:
        raise ConflictError(f"The run {name} moves no files.", hint="See `stillwatch runs`.")
    if mode == "none":
        raise ConflictError(
            "Filing is switched off (filing.mode = none).", hint="Set filing.mode to move."
        )


def _apply_one(db: Database, applier: "_Applier", entry: RowMapping, result: ApplyResult) -> None:
    try:
        moved = applier.apply(entry, result)
    except OneFileError as exc:
        with db.write() as connection:
            runs.mark_entry(connection, entry["id"], entry["state"], exc.summary)
        stays = Skipped(frame_id=entry["frame_id"], path=entry["target"], reason=exc.summary)
        result.left.append(stays)
        return
    except (FilingError, RootOfflineError) as exc:
        with db.write() as connection:
            # What an undo took back stays so until it is really applied again.
            state = "undone" if entry["state"] == "undone" else "skipped"
            runs.mark_entry(connection, entry["id"], state, exc.summary)
        skipped = Skipped(frame_id=entry["frame_id"], path=entry["target"], reason=exc.summary)
        result.skipped.append(skipped)
        return
    result.applied += 1
    if moved is not None:
        result.moved.append(moved)
        result.bytes += entry["size"] or 0


class _Applier:
    """The checks and the operation of one entry after the other of one run."""

    def __init__(
        self,
        db: Database,
        run_id: int,
        mode: Mode,
        clock: Clock,
        roots: Mapping[int, GuardedRoot],
        labels: Mapping[int, bytes],
        templates: FolderTemplates,
    ) -> None:
        self._db = db
        self._run_id = run_id
        self._mode = mode
        self._clock = clock
        self._roots = MarkedRoots(db, roots)
        self._labels = labels
        self._templates = templates
        self._finder = SidecarFinder(db)
        self._keepers: dict[int, FileFacts] = {}

    def apply(self, entry: RowMapping, result: ApplyResult) -> Moved | None:
        """Do one entry; None when the frame is in its place already.

        Sidecar files that stay behind are noted in `result`.

        Raises:
            FilingError, RootOfflineError: Not done, with the reason.
        """
        with self._db.read() as connection:
            frame = frame_to_file(connection, entry["frame_id"])
        sha256 = _require_unchanged(frame, entry)
        root = self._roots.root_of(frame.camera_id)
        folder = entry["target"].rpartition(b"/")[0] if entry["target"] else None
        folder = folder or target_folder(frame, self._labels, self._templates)
        if folder is not None and filed_in(frame) == folder:
            with self._db.write() as connection:
                runs.mark_entry(connection, entry["id"], "applied", "was in its place already")
            return None
        if entry["keeper_id"] is not None:
            self._require_keeper(root, entry["keeper_id"], frame, sha256)
        if folder is None:
            raise FilingError("The frame has no folder to go to.", path=printable_path(frame.path))
        target, companions = self._choose_target(root, frame, folder, entry["target"])
        return self._perform(root, frame, entry, target, sha256, companions, result)

    def _choose_target(
        self, root: GuardedRoot, frame: FilingFrame, folder: bytes, planned: bytes | None
    ) -> tuple[bytes, Companions]:
        """The planned place; another name where that is taken or sidecar files would be mixed."""
        source = filed_place(frame) or frame.path
        target = planned or join(folder, split(frame.original_path)[1])
        companions = self._finder.companions(root, source, target)
        links = self._operation(frame) != "move"
        with root.opened() as fd, self._db.read() as connection:

            def mixes(camera: int, path: bytes) -> bool:
                return clashes(connection, fd, camera, path, companions.sidecars, links=links)

            def taken(camera: int, path: bytes) -> bool:
                known = path_recorded(connection, camera, path)
                return known or exists(fd, path) or mixes(camera, path)

            if planned is None or taken(frame.camera_id, planned):
                target = target_path(frame, folder, taken)
        return target, self._finder.companions(root, source, target)

    def _require_keeper(
        self, root: GuardedRoot, keeper_id: int, frame: FilingFrame, sha256: bytes
    ) -> None:
        """The keeper must be on disk with its recorded bytes, and be another file."""
        with self._db.read() as connection:
            keeper = frame_to_file(connection, keeper_id)
        name = format_id(FRAME, keeper_id)
        if keeper.camera_id != frame.camera_id or keeper.state in ("missing", "trashed", "pruned"):
            raise ChangedFileError(f"The keeper {name} is not on disk; its duplicate stays.")
        with root.opened() as fd:
            own = stat_facts(fd, frame.path, sha256)
            try:
                facts = self._keeper_facts(fd, keeper)
            except OSError as exc:
                raise FilingError(f"The keeper {name} cannot be read: {exc.strerror}.") from exc
        if facts is None or facts.sha256 != keeper.sha256:
            what = "is gone" if facts is None else "has changed"
            raise ChangedFileError(f"Its keeper {name} {what}; the frame stays where it is.")
        if own is not None and own.same_inode(facts):
            raise OneFileError(f"The frame and its keeper {name} are one file; it stays.")

    def _keeper_facts(self, fd: int, keeper: FilingFrame) -> FileFacts | None:
        """Hash a keeper once a run; again only when its stat changed (a move changes ctime)."""
        known = self._keepers.get(keeper.id)
        if known is not None and known == stat_facts(fd, keeper.path, known.sha256):
            return known
        facts = examine(fd, keeper.path)
        if facts is not None:
            self._keepers[keeper.id] = facts
        return facts

    def _perform(
        self,
        root: GuardedRoot,
        frame: FilingFrame,
        entry: RowMapping,
        target: bytes,
        sha256: bytes,
        companions: Companions,
        result: ApplyResult,
    ) -> Moved:
        source = filed_place(frame) or frame.path
        intent = Intent(
            frame_id=frame.id,
            operation=self._operation(frame),
            source=source,
            target=target,
            sha256=sha256,
            run_id=self._run_id,
            entry_id=entry["id"],
            note="; ".join(companions.left) or None,
        )
        done = perform(self._db, root, intent, self._clock(), companions.sidecars)
        if is_own_path(source):
            with root.opened() as fd:
                remove_empty_folders(fd, source)
        for reasons, where in ((companions.left, result.left), (done.left, result.skipped)):
            where.extend(Skipped(frame_id=frame.id, path=target, reason=r) for r in reasons)
        return Moved(frame_id=frame.id, source=source, target=target)

    def _operation(self, frame: FilingFrame) -> Operation:
        if is_own_path(frame.path):
            return "move"
        if frame.link is not None:
            return "move_link"
        return "move" if self._mode == "move" else "copy" if self._mode == "copy" else "hardlink"


def _require_unchanged(frame: FilingFrame, entry: RowMapping) -> bytes:
    """The frame's hash, if the row is still what the plan was made for."""
    path = printable_path(frame.path)
    if frame.state in ("missing", "trashed", "pruned", "pending", "rejected"):
        raise ChangedFileError(f"The frame is {frame.state} now.", path=path)
    if frame.sha256 is None or entry["sha256"] not in (None, frame.sha256):
        raise ChangedFileError("The file has other bytes now.", path=path)
    if entry["keeper_id"] is not None and frame.duplicate_of != entry["keeper_id"]:
        raise ChangedFileError("The verdict has changed since the plan.", path=path)
    return frame.sha256
