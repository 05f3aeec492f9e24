"""Real folders, databases, files and pictures for the tests of the ingest room."""

import hashlib
import io
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from sqlalchemy import RowMapping, text

from daemon.cameras import ChosenCamera, register
from daemon.ingest.encoding import EncodedFrame
from daemon.ingest.frame_writing import CameraFacts
from daemon.ingest.recording import Recorder
from daemon.ingest.settling import stat_key
from daemon.messages import Assignment, DecodedImage, RefusedFile, SettledFile
from storage import embeddings, frames
from storage.engine import Database

DIM = 4


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 60.0) -> None:
    """Look until the condition holds; fail with a word after the deadline."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.01)


def scene(seed: int = 0, width: int = 64, height: int = 48) -> Image.Image:
    """A picture of its own for each seed."""
    generator = np.random.default_rng(seed)
    small = generator.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.NEAREST)


def encoded(image: Image.Image, form: str = "JPEG", **options: Any) -> bytes:
    """The bytes of a picture file."""
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


@dataclass(slots=True)
class World:
    """One camera with its folder and database."""

    folder: Path
    state_dir: Path
    db: Database
    camera_id: int
    space_id: int
    now: float = 1_000_000.0

    @property
    def root(self) -> bytes:
        return os.fsencode(self.folder)

    def put(self, path: str | bytes, data: bytes = b"x") -> bytes:
        """Write a file below the folder; returns its path below it."""
        relative = os.fsencode(path)
        full = os.path.join(self.root, relative)
        os.makedirs(os.path.dirname(full), exist_ok=True)
        with open(full, "wb") as file:
            file.write(data)
        return relative

    def know(self, *paths: str | bytes, stage: str = "embedded") -> None:
        """Give files rows as if they had been recorded just now."""
        relative = [os.fsencode(path) for path in paths]
        with self.db.write() as connection:
            frames.insert_pending(connection, self.camera_id, relative, self.now)
            for path in relative:
                key = stat_key(os.lstat(os.path.join(self.root, path)))
                row = frames.row_at(connection, self.camera_id, path)
                frames.update_frame(
                    connection,
                    row.id,
                    stage=stage,
                    inode=key.inode,
                    size=key.size,
                    mtime_ns=key.mtime_ns,
                    ctime_ns=key.ctime_ns,
                )

    def rows(self) -> list[RowMapping]:
        """Every frame, oldest first."""
        with self.db.read() as connection:
            return list(
                connection.execute(text("SELECT * FROM frames ORDER BY id")).mappings().all()
            )

    def states(self) -> dict[str, str]:
        """State of the frames on disk by path."""
        return {os.fsdecode(r["path"]): r["state"] for r in self.rows() if r["presence"] == "here"}

    def settled(self, path: str | bytes) -> SettledFile:
        """A file as the settler hands it over."""
        relative = os.fsencode(path)
        key = stat_key(os.lstat(os.path.join(self.root, relative)))
        return SettledFile(
            camera_id=self.camera_id, path=relative, stat=key, changed_at=key.ctime_ns / 1e9
        )

    def recorder(self) -> Recorder:
        facts = CameraFacts(root=self.root, zone=UTC, pattern=None)
        return Recorder(self.db, {self.camera_id: facts}, lambda: self.now)

    def frame(self, path: str | bytes, exif_time: str | None = None) -> EncodedFrame:
        """A file of the folder as the encoder hands it over."""
        file = self.settled(path)
        with open(os.path.join(self.root, file.path), "rb") as opened:
            data = opened.read()
        image = DecodedImage(
            file=file,
            sha256=hashlib.sha256(data).digest(),
            format="JPEG",
            width=64,
            height=48,
            pixels=np.zeros((2, 2, 3), dtype=np.uint8),
            grey=b"grey",
            exif_time=exif_time,
        )
        return EncodedFrame(
            image=image,
            vector=np.eye(DIM, dtype=np.float32)[0],
            tiles=None,
            tile_shape=None,
            assignment=Assignment(cluster_id=None, novel=False),
        )

    def record(self, *items: EncodedFrame | RefusedFile | str) -> None:
        """Record items, or the files at these paths, in one batch."""
        batch: Sequence[EncodedFrame | RefusedFile] = [
            self.frame(item) if isinstance(item, str) else item for item in items
        ]
        self.recorder().record(self.space_id, batch)


def make_world(tmp_path: Path) -> World:
    """A fresh camera folder and database; close `db` at the end."""
    folder, state_dir = tmp_path / "camera", tmp_path / "state"
    folder.mkdir()
    state_dir.mkdir()
    db = Database(state_dir)
    chosen = ChosenCamera(root=folder, name="camera", kind=None, timezone=None, pattern=None)
    with db.write() as connection:
        camera_id = register(connection, chosen, 1.0)
        space_id = embeddings.ensure_space(
            connection, name="test", encoder="test", weights_sha256="0", dim=DIM, now=1.0
        )
    return World(folder, state_dir, db, camera_id, space_id)
