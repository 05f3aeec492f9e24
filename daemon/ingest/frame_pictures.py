"""The pictures of known frames at any size, read again from their files.

Decoded as on arrival, in a limited process; a file counts only while it has the SHA-256 that was
recorded. Nothing is written.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Self

import numpy as np

from daemon.ingest.decode_process import ChildFailedError, DecodeChild
from daemon.messages import ByteArray
from daemon.settings import IngestSettings
from storage.beneath import opened_directory, opened_file
from storage.errors import StillwatchError


@contextmanager
def opened_frame(root: bytes, path: bytes) -> Iterator[int]:
    """A read-only descriptor of a frame's file, reached without following any link.

    Args:
        root: The camera's folder.
        path: Of the file, below the root.
    """
    folder, _, name = path.rpartition(b"/")
    top = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with opened_directory(top, folder) as directory, opened_file(directory, name) as fd:
            yield fd
    finally:
        os.close(top)


class FramePictures:
    """Reads pictures by one decoding process, which is replaced when a file kills it."""

    def __init__(self, settings: IngestSettings) -> None:
        self._settings = settings
        self._child: DecodeChild | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._child is not None:
            self._child.close()

    def read(self, frame: Mapping[str, Any], width: int, height: int) -> ByteArray:
        """The frame's whole picture, upright, squeezed to a size: uint8 RGB (height, width, 3).

        Args:
            frame: With `root`, `path` and `sha256`, bytes.
            width: Pixels.
            height: Pixels.

        Raises:
            StillwatchError: The file is gone, changed, or no usable picture any more.
        """
        self._child = self._child or DecodeChild(self._settings)
        try:
            with opened_frame(bytes(frame["root"]), bytes(frame["path"])) as fd:
                answer, payload = self._child.ask(fd, (height, width))
        except OSError as exc:
            raise StillwatchError(f"its file cannot be read: {exc.strerror}") from exc
        except ChildFailedError as exc:
            self._child = None
            raise StillwatchError(str(exc)) from exc
        refused = answer.get("refused") or answer.get("unreadable")
        if refused:
            raise StillwatchError(str(refused))
        if answer["sha256"] != bytes(frame["sha256"] or b"").hex():
            raise StillwatchError("its file has changed since it was read")
        pixels = np.frombuffer(payload, dtype=np.uint8, count=height * width * 3)
        return pixels.reshape(height, width, 3)
