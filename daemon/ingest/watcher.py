"""Watching one camera's folder with watchdog; everything it says is only a hint.

The watch is recursive but leaves out `FOLDER/stillwatch/` and hidden folders (our own moves must
not echo, and a thousand groups of duplicates must not use up the watch limit). Two facts that
watchdog does not report are caught here: the kernel's queue overflowed (watchdog#654), and a
folder could not be watched (the watch limit). Both ask for a scan.
"""

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from watchdog.events import (
    DirCreatedEvent,
    DirDeletedEvent,
    DirMovedEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileDeletedEvent,
    FileModifiedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers.inotify import InotifyEmitter, InotifyObserver, InotifyWatchGroup

from daemon.ingest.candidates import is_watched_folder

log = logging.getLogger(__name__)

# Stopping a watch that waits for events is logged as an error there; it is how every run ends.
logging.getLogger("watchdog.observers.inotify").addFilter(
    lambda record: "called when the thread is inactive" not in record.getMessage()
)

EVENTS: Final[list[type[FileSystemEvent]]] = [
    DirCreatedEvent,
    DirDeletedEvent,
    DirMovedEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileDeletedEvent,
    FileModifiedEvent,
    FileMovedEvent,
]


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

    def on_queue_overflow(self) -> None:
        super().on_queue_overflow()
        self.sink.lost("the kernel's event queue overflowed")

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
                watch.callbacks[self._id] = self._callback
        except OSError:
            if path == self.path:
                raise
            if os.path.isdir(path):
                self.sink.lost("a folder could not be watched (is the watch limit reached?)")
            return
        self._active_callbacks_by_path[path] = watch.wd
        self._active_callbacks_by_watch[watch.wd] = path


class _Emitter(InotifyEmitter):
    """Starts the pruned group instead of watchdog's own."""

    sink: WatchSink

    def on_thread_start(self) -> None:
        root = os.fsencode(self.watch.path)
        group = type("Group", (_PrunedWatchGroup,), {"sink": self.sink, "root": root})
        self._inotify = group(
            self._inotify_fd,
            root,
            is_recursive=True,
            event_mask=self.get_event_mask_from_filter(),
            follow_symlink=False,
        )


class _Handler(FileSystemEventHandler):
    """Turns watchdog's events into hints."""

    def __init__(self, root: bytes, sink: WatchSink) -> None:
        self._root = root
        self._sink = sink

    def on_any_event(self, event: FileSystemEvent) -> None:
        """Enqueue the paths of one event."""
        for name in (event.src_path, event.dest_path):
            if not name:
                continue
            path = os.path.relpath(os.fsencode(name), self._root)
            if path == b".":
                if isinstance(event, DirDeletedEvent):
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
        self._identity: tuple[int, int] | None = None

    def start(self) -> None:
        """Begin to watch; the caller scans afterwards, as anything before is unseen."""
        status = os.stat(self._root)
        observer = InotifyObserver()
        emitter_class: Any = type("Emitter", (_Emitter,), {"sink": self._sink})
        observer._emitter_class = emitter_class  # the only way to hand in an emitter
        handler = _Handler(self._root, self._sink)
        observer.schedule(handler, os.fsdecode(self._root), recursive=True, event_filter=EVENTS)
        try:
            observer.start()
        except BaseException:
            observer.stop()
            raise
        self._observer = observer
        self._identity = (status.st_dev, status.st_ino)

    def stop(self) -> None:
        """End the watch; safe to call twice."""
        if self._observer is not None:
            self._observer.stop()
            self._observer.join()
            self._observer = None

    @property
    def alive(self) -> bool:
        """Whether the watch runs and still looks at the folder that is at the root's path now.

        watchdog's own `is_alive` stays true after the root was renamed away or mounted over, and
        tells of one of its three kinds of threads only: who reads, who groups, who hands over.
        """
        observer = self._observer
        if observer is None or not observer.emitters:
            return False
        threads = (observer, observer._inotify_fd, *observer.emitters)
        if not all(thread.is_alive() for thread in threads):
            return False
        try:
            status = os.stat(self._root)
        except OSError:
            return False
        return (status.st_dev, status.st_ino) == self._identity
