"""Watching one camera's folder with watchdog; everything it says is only a hint.

The watch is recursive but leaves out `FOLDER/stillwatch/` and hidden folders (our own moves must
not echo, and a thousand groups of duplicates must not use up the watch limit). What watchdog does
not report is caught here: the kernel's queue overflowed (watchdog#654), the root was renamed or
lost its watch, and a folder could not be watched (watch limit, no permission). All ask for a scan.
"""

import errno
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from watchdog.events import (
    DirAttribEvent,
    DirCreatedEvent,
    DirDeletedEvent,
    DirMovedEvent,
    FileAttribEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileDeletedEvent,
    FileModifiedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers.inotify import InotifyEmitter, InotifyObserver, InotifyWatchGroup
from watchdog.observers.inotify_c import InotifyConstants, InotifyEvent, Mask

from daemon.ingest.candidates import is_watched_folder
from daemon.ingest.watch_backlog import WatchBacklog

log = logging.getLogger(__name__)

# Stopping a watch that waits for events is logged as an error there; it is how every run ends. An
# overflow is told by the camera's state: a storm of them must not fill the log.
for _name in ("watchdog.observers.inotify", "watchdog.observers.inotify_c"):
    logging.getLogger(_name).addFilter(
        lambda record: (
            "called when the thread is inactive" not in record.getMessage()
            and "queue overflowed" not in record.getMessage()
        )
    )

EVENTS: Final[list[type[FileSystemEvent]]] = [
    DirAttribEvent,  # a permission that was granted makes a file or folder readable
    DirCreatedEvent,
    DirDeletedEvent,
    DirMovedEvent,
    FileAttribEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileDeletedEvent,
    FileModifiedEvent,
    FileMovedEvent,
]

OVERFLOW: Final = "the kernel's event queue overflowed"
"""The reason of a loss that the owner is told of; the others mend themselves unseen."""


@dataclass(frozen=True, slots=True)
class WatchSink:
    """Where the watcher's hints go; called from watchdog's threads, must be quick.

    `changed(path)`: look at this file. `folder(path)`: scan below this folder. `lost(reason)`:
    events are missing, scan everything. Paths are bytes below the root; b"" is the root.
    """

    changed: Callable[[bytes], None]
    folder: Callable[[bytes], None]
    lost: Callable[[str], None]


class _PrunedWatchGroup(InotifyWatchGroup):
    """A recursive watch group that leaves folders out and reports what it could not watch.

    Overrides internals of watchdog 7.1 (the version is locked; tests/integration/test_watcher.py
    fails when they change).
    """

    sink: WatchSink
    root: bytes
    unwatched: dict[bytes, int]
    """Folders that could not be watched, with the errno."""

    def on_queue_overflow(self) -> None:
        super().on_queue_overflow()
        self.sink.lost(OVERFLOW)

    def on_event(self, event: InotifyEvent) -> None:
        if event.is_move_self:
            if self._active_callbacks_by_watch.get(event.wd) == self.root:
                self.sink.lost("the folder itself was renamed")
            return  # what moved below the root is told by the folders around it
        super().on_event(event)
        if event.is_attrib and self.unwatched:
            self._watch_what_was_granted(event)

    @property
    def watches_root(self) -> bool:
        """Whether the root has its watch; an unmount or an overflow may have taken it."""
        return self.root in self._active_callbacks_by_path

    def _watch_what_was_granted(self, event: InotifyEvent) -> None:
        """Try the unwatched folders again whose rights, or those of a folder above, changed."""
        with self._lock:
            changed = self._build_event_source_path(event)
            if changed is None:
                return
            for path in list(self.unwatched):
                if path == changed or path.startswith(changed + b"/"):
                    self._add_all_callbacks(path)

    def _add_all_callbacks(self, path: bytes) -> None:
        if not self._wanted(path):
            return
        self._add_callback(path)
        if not os.path.isdir(path):
            return
        for folder, names, _files in os.walk(path):
            names[:] = [name for name in names if self._wanted(os.path.join(folder, name))]
            for name in names:
                full_path = os.path.join(folder, name)
                if not os.path.islink(full_path):
                    self._add_callback(full_path)

    def _wanted(self, path: bytes) -> bool:
        return path == self.root or is_watched_folder(os.path.relpath(path, self.root))

    def _add_callback(self, path: bytes) -> None:
        # Not the inherited way: that warns when a folder is added twice, which is usual for
        # folders made one in the other at once.
        reader = self._inotify_fd
        try:
            with reader._lock:
                watch = reader._get_or_create_watch(path, self.event_mask)
                if watch.wd < 0:  # watchdog takes a refusal for a watch
                    reader._watch_for_wd.pop(watch.wd, None)
                    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
                watch.callbacks[self._id] = self._callback
        except OSError as exc:
            if path == self.path:
                raise
            if os.path.isdir(path):
                self.unwatched[path] = exc.errno or 0
                self.sink.lost("a folder could not be watched")
            return
        self.unwatched.pop(path, None)
        self._active_callbacks_by_path[path] = watch.wd
        self._active_callbacks_by_watch[watch.wd] = path


class _Emitter(InotifyEmitter):
    """Starts the pruned group instead of watchdog's own."""

    sink: WatchSink
    unwatched: dict[bytes, int]

    def on_thread_start(self) -> None:
        root = os.fsencode(self.watch.path)
        given = {"sink": self.sink, "root": root, "unwatched": self.unwatched}
        group = type("Group", (_PrunedWatchGroup,), given)
        self._inotify = group(
            self._inotify_fd,
            root,
            is_recursive=True,
            event_mask=Mask(self.get_event_mask_from_filter() | InotifyConstants.IN_MOVE_SELF),
            follow_symlink=False,
        )


class _Handler(FileSystemEventHandler):
    """Turns watchdog's events into hints."""

    def __init__(self, root: bytes, sink: WatchSink) -> None:
        self._root = root
        self._sink = sink
        self.root_deleted = False

    def on_any_event(self, event: FileSystemEvent) -> None:
        """Enqueue the paths of one event."""
        for name in (event.src_path, event.dest_path):
            if not name:
                continue
            path = os.path.relpath(os.fsencode(name), self._root)
            if path == b".":
                if isinstance(event, DirDeletedEvent):
                    self.root_deleted = True
                    self._sink.lost("the folder itself was deleted")
            elif event.is_directory:
                self._sink.folder(path)
            else:
                self._sink.changed(path)


class Watcher:
    """The watch of one root; `start` again after the root came back.

    Raises (from `start`): OSError when the root itself cannot be watched.
    """

    def __init__(self, root: bytes, sink: WatchSink) -> None:
        self._root = root
        self._sink = sink
        self._observer: InotifyObserver | None = None
        self._backlog: WatchBacklog | None = None
        self._identity: tuple[int, int] | None = None
        self._handler = _Handler(root, sink)
        self._unwatched: dict[bytes, int] = {}

    def start(self) -> None:
        """Begin to watch; the caller scans afterwards, as anything before is unseen."""
        status = os.stat(self._root)
        self._unwatched.clear()
        self._handler = _Handler(self._root, self._sink)
        observer = InotifyObserver()
        given = {"sink": self._sink, "unwatched": self._unwatched}
        emitter_class: Any = type("Emitter", (_Emitter,), given)
        observer._emitter_class = emitter_class  # the only way to hand in an emitter
        root = os.fsdecode(self._root)
        observer.schedule(self._handler, root, recursive=True, event_filter=EVENTS)
        try:
            observer.start()
        except BaseException:
            observer.stop()
            raise
        self._observer = observer
        self._backlog = WatchBacklog(observer)
        self._identity = (status.st_dev, status.st_ino)

    def stop(self) -> None:
        """End the watch; safe to call twice."""
        if self._observer is not None:
            self._observer.stop()
            self._observer.join()
            self._observer = self._backlog = None

    @property
    def alive(self) -> bool:
        """Whether the watch runs and still looks at the folder that is at the root's path now.

        watchdog's own `is_alive` stays true after the root was renamed away, mounted over or
        unmounted, and tells of one of its three kinds of threads only: who reads, who groups, who
        hands over.
        """
        observer = self._observer
        if observer is None or not observer.emitters:
            return False
        threads = (observer, observer._inotify_fd, *observer.emitters)
        if not all(thread.is_alive() for thread in threads) or not self._root_is_watched(observer):
            return False
        try:
            status = os.stat(self._root)
        except OSError:
            return False
        return (status.st_dev, status.st_ino) == self._identity

    def silent_seconds(self) -> float:
        """For how long its threads have not worked off what the kernel told; 0 while they do."""
        return 0.0 if self._backlog is None else self._backlog.silent_seconds()

    @property
    def root_deleted(self) -> bool:
        """Whether the kernel told that the root was deleted: it was empty then."""
        return self._handler.root_deleted

    @property
    def problem(self) -> str | None:
        """Why folders below the root that can be listed are not watched, in words; None: all are.

        A folder that may not be read is told by the scans, and tried again when its rights change.
        """
        numbers = {*list(self._unwatched.values())} - {errno.EACCES}  # one step for the threads
        if not numbers:
            return None
        if errno.ENOSPC in numbers:
            why = "the limit fs.inotify.max_user_watches is reached"
        else:
            why = os.strerror(min(numbers))
        return f"not every folder below can be watched: {why}"

    def _root_is_watched(self, observer: InotifyObserver) -> bool:
        groups = [getattr(emitter, "_inotify", None) for emitter in observer.emitters]
        return all(isinstance(group, _PrunedWatchGroup) and group.watches_root for group in groups)
