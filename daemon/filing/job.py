"""The filing job: read, plan, brake, store a run a batch, apply it."""

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from sqlalchemy import Connection

from daemon.filing.apply import ApplyResult, Clock, Progress, apply_entries
from daemon.filing.folder_renames import rename_folders
from daemon.filing.plan import Batches, Brake, apply_brake, plan_filing
from daemon.messages import FilingEntry
from daemon.path_template import DEFAULT_TEMPLATES, FolderTemplates
from daemon.settings import FilingSettings
from storage.engine import Database
from storage.errors import FilingError, RootOfflineError
from storage.file_facts import exists
from storage.filing_rows import (
    cluster_names,
    count_on_disk,
    frames_to_file,
    note_brake,
    path_recorded,
    taken_back,
)
from storage.journal import recover
from storage.plan_entries import NewEntry
from storage.root_guard import GuardedRoot, load_roots
from storage.runs import create_run


@dataclass(slots=True, kw_only=True)
class FilingOutcome:
    """The runs that a filing job applied and the cameras that the brake held."""

    runs: list[ApplyResult] = field(default_factory=list)
    brakes: Sequence[Brake] = ()

    @property
    def partly(self) -> bool:
        """Whether an entry was skipped (exit code 3)."""
        return any(run.partly for run in self.runs)


def propose(
    db: Database,
    *,
    cameras: Collection[int] | None = None,
    templates: FolderTemplates = DEFAULT_TEMPLATES,
) -> list[FilingEntry]:
    """What filing would do now, file by file; touches nothing.

    Args:
        db: The database.
        templates: The owner's folders.
        cameras: Ids of the cameras; None: all. Offline and read-only ones are left out.
    """
    with db.read() as connection, ExitStack() as stack:
        opened = _open_roots(stack, load_roots(connection), cameras)

        def taken(camera_id: int, path: bytes) -> bool:
            return path_recorded(connection, camera_id, path) or _occupied(opened[camera_id], path)

        return plan_filing(
            frames_to_file(connection, opened.keys()),
            cluster_names(connection),
            taken=taken,
            taken_back=taken_back(connection),
            templates=templates,
        )


def _open_roots(
    stack: ExitStack, roots: Mapping[int, GuardedRoot], cameras: Collection[int] | None
) -> dict[int, int]:
    opened = {}
    for camera_id, root in roots.items():
        if root.writable and (cameras is None or camera_id in cameras):
            try:
                opened[camera_id] = stack.enter_context(root.opened())
            except RootOfflineError:
                continue  # concludes nothing; the scanner says so in the camera's state
    return opened


def _occupied(root_fd: int, path: bytes) -> bool:
    try:
        return exists(root_fd, path)
    except FilingError:
        return False  # applying the entry will be refused, with the reason


def file_frames(
    db: Database,
    settings: FilingSettings,
    *,
    explicit: bool,
    clock: Clock,
    progress: Progress = lambda _done, _total: None,
    should_stop: Callable[[], bool] = lambda: False,
    cameras: Collection[int] | None = None,
) -> FilingOutcome:
    """Put frames where they belong, in runs of at most `filing.brake_files`, each undoable.

    Args:
        db: The database; the caller is its one writer.
        settings: Mode and brake.
        explicit: The owner asked for this very run (`--once --file`), so filed frames may move
            again in any number; else the brake holds (see `apply_brake`) and writes an event.
        clock: Wall-clock seconds.
        progress: Called with (entries done, entries in all).
        should_stop: Asked before each entry.
        cameras: Ids of the cameras; None: all.

    Raises:
        NotDurableError: The disk failed to confirm; `recover` settles it later.
    """
    if settings.mode == "none":
        return FilingOutcome()
    db.files.require_durable()
    with db.read() as connection:
        roots = load_roots(connection)
    recover(db, roots, clock())
    renamed = rename_folders(
        db, settings.templates, clock=clock, should_stop=should_stop, cameras=cameras
    )
    entries = propose(db, cameras=cameras, templates=settings.templates)
    plan = _braked(db, settings, entries, explicit=explicit, clock=clock)
    outcome = FilingOutcome(brakes=plan.brakes, runs=renamed)
    total, done = sum(len(batch) for batch in plan.batches), 0
    for batch in plan.batches:
        if should_stop():
            break
        shown = _shifted(progress, done, total)
        outcome.runs.append(_apply_batch(db, batch, settings, clock, shown, should_stop))
        done += len(batch)
    return outcome


def _braked(
    db: Database,
    settings: FilingSettings,
    entries: Sequence[FilingEntry],
    *,
    explicit: bool,
    clock: Clock,
) -> Batches:
    """The entries that may be applied, in batches; an event says what the brake held."""
    with db.read() as connection:
        counts = count_on_disk(connection)
    plan = apply_brake(
        entries,
        counts,
        share=settings.brake_share,
        files=settings.brake_files,
        explicit=explicit,
    )
    _note_brakes(db, plan.brakes, clock())
    return plan


def _shifted(progress: Progress, before: int, total: int) -> Progress:
    return lambda step, _size: progress(before + step, total)


def _apply_batch(
    db: Database,
    batch: Sequence[FilingEntry],
    settings: FilingSettings,
    clock: Clock,
    progress: Progress,
    should_stop: Callable[[], bool],
) -> ApplyResult:
    with db.write() as connection:
        run_id = store_filing_run(connection, batch, clock())
    return apply_entries(
        db,
        run_id,
        mode=settings.mode,
        clock=clock,
        progress=progress,
        should_stop=should_stop,
        templates=settings.templates,
    )


def store_filing_run(connection: Connection, entries: Sequence[FilingEntry], now: float) -> int:
    """Store a filing plan as a run and return its id."""
    new = [
        NewEntry(
            frame_id=entry.frame_id,
            keeper_id=entry.keeper_id,
            target=entry.target,
            sha256=entry.sha256,
            size=entry.size,
            reason=entry.reason,
        )
        for entry in entries
    ]
    return create_run(connection, "filing", new, now=now)


def _note_brakes(db: Database, brakes: Sequence[Brake], now: float) -> None:
    if not brakes:
        return
    with db.write() as connection:
        for brake in brakes:
            data = {"would_move": brake.would_move, "on_disk": brake.on_disk}
            note_brake(connection, brake.camera_id, data, now)
