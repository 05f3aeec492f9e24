"""Changing the encoder: fill the new space beside the old one, then change over in one step.

Until the change-over the old space serves and new frames are encoded by the old network. The
clustering of the new space is published in the very transaction that lets it serve, so nobody
ever sees vectors of one space beside distances of the other. The way back is the same way.
"""

import json
import shutil
import time
from collections.abc import Callable
from typing import Any, Final, Literal

from sqlalchemy import Connection

from daemon.jobs.child import Progress
from daemon.jobs.recluster import recluster
from daemon.jobs.reembed import Stretch, embed_lacking, encoder_cache
from daemon.jobs.snapshot import SPARE_BYTES
from daemon.jobs.triggers import LAST_KEY
from daemon.jobs.workshop import Workshop
from storage import embeddings, meta, runs, spaces
from storage.errors import DiskFullError
from storage.spaces import SpaceRow, Switch

STRETCH_SECONDS: Final = 60.0
"""How long frames are encoded before other jobs get their turn."""
FEW: Final = 256
"""So many frames may come while the last stretch runs; they follow right after the change."""
BYTES_A_FRAME: Final = 50_000
"""What a vector, a tile map and a grey picture take in the database; 27 to 45 kB were measured."""
LATE: Final = "it arrived while the encoder changed; its vector follows"

Outcome = Literal["idle", "working", "waiting", "changed"]


class Advance:
    """Brings a change of the encoder forward; keeps between calls what cannot be encoded.

    Args:
        workshop: What the jobs work with.
        wait_for_cameras: Whether a camera of this run whose folder is away holds the change up.
    """

    def __init__(self, workshop: Workshop, *, wait_for_cameras: bool) -> None:
        self._workshop = workshop
        self._wait = wait_for_cameras
        self._refused: set[int] = set()
        self._of: Switch | None = None

    def step(self, progress: Progress, seconds: float = STRETCH_SECONDS) -> Outcome:
        """Encode for some time, or change over when all is encoded.

        Raises:
            StillwatchError: A process failed or was stopped, the disk is full, or the new
                network cannot be used; the old space serves on, a later call goes on.
        """
        workshop = self._workshop
        with workshop.db.read() as connection:
            switch = spaces.load_switch(connection)
        if switch is None:
            return "idle"
        if switch != self._of:
            self._refused.clear()
        self._of, space = _with_space(workshop, switch, progress)
        teller = _Teller(workshop, self._of, space, self._refused, progress)
        _check_room(workshop, teller.left())
        teller.tell("encoding", 0)
        stretch = embed_lacking(
            workshop, space, skip=self._refused, seconds=seconds, progress=teller
        )
        self._refused.update(stretch.refused)
        missing = self._left(space, stretch)
        if missing:
            teller.tell(missing, 0)
            return "waiting" if stretch.exhausted else "working"
        if not stretch.exhausted or teller.left() > FEW:
            return "working"
        teller.tell("clustering", 0)
        _change_over(workshop, self._of, space, progress)
        return "changed"

    def _left(self, space: SpaceRow, stretch: Stretch) -> str | None:
        """Which camera of this run holds the change up, in words."""
        if not self._wait:
            return None
        with self._workshop.db.read() as connection:
            names = spaces.lacking_cameras(connection, space.id)
        away = [name for camera, name in names.items() if camera not in stretch.reached]
        return f"waiting for the folder of camera {', '.join(away)}" if away else None


class _Teller:
    """Writes how far the change is into the database, for `status`; at most twice a second."""

    def __init__(
        self, workshop: Workshop, switch: Switch, space: SpaceRow, refused: set[int], to: Progress
    ) -> None:
        self._workshop = workshop
        self._switch = switch
        self._space = space
        self._refused = refused
        self._to = to
        self._began = time.monotonic()
        self._told = float("-inf")
        with workshop.db.read() as connection:
            self._have = spaces.count_vectors(connection, space.id)
            self._lacking = self._still_lacking(connection)

    def __call__(self, stage: str, done: int, _total: int) -> None:
        total = self._have + self._lacking
        self._to(stage, self._have + done, total)
        if time.monotonic() - self._told >= 0.5:
            self.tell("encoding", done)

    def _still_lacking(self, connection: Connection) -> int:
        return sum(
            i not in self._refused for i in spaces.lacking(connection, self._space.id).tolist()
        )

    def left(self) -> int:
        """Frames that still lack a vector and may get one."""
        with self._workshop.db.read() as connection:
            return self._still_lacking(connection)

    def tell(self, stage: str, done: int) -> None:
        """Write it: `done` more frames since this began."""
        self._told = time.monotonic()
        total = self._have + self._lacking
        left = max(0, self._lacking - done)
        seconds = (self._told - self._began) * left / done if done else None
        facts = {
            "to": self._switch.encoder,
            "undoes": self._switch.undoes,
            "stage": stage,
            "done": self._have + done,
            "total": total,
            "left_out": len(self._refused),
            "seconds_left": None if seconds is None else round(seconds, 1),
        }
        share = (self._have + done) / total if total else 1.0
        with self._workshop.db.write() as connection:
            serving = spaces.serving_space(connection)
            if serving is not None:
                spaces.tell_encoder(
                    connection, serving.encoder, serving.name, "switching", round(share, 4), facts
                )


def _with_space(workshop: Workshop, switch: Switch, progress: Progress) -> tuple[Switch, SpaceRow]:
    """The space that the change leads to; the first time the network is prepared and it is made.

    Raises:
        JobFailedError: The network cannot be prepared.
    """
    if switch.space_id is not None:
        with workshop.db.read() as connection:
            return switch, spaces.space_of(connection, switch.space_id)
    facts = prepared_space(workshop, switch.encoder, progress)
    with workshop.db.write() as connection:
        space_id = embeddings.ensure_space(
            connection, encoder=switch.encoder, now=workshop.wall(), **facts
        )
        space = spaces.space_of(connection, space_id)
        run_id = _new_run(workshop, connection, space)
        switch = Switch(
            encoder=switch.encoder, started_at=switch.started_at, space_id=space_id, run_id=run_id
        )
        spaces.store_switch(connection, switch)
    return switch, space


def _check_room(workshop: Workshop, frames: int) -> None:
    """Whether the vectors that are missing fit on the disk: ingest must not stop for them.

    Raises:
        DiskFullError: They do not; the message says how much is missing.
    """
    needed = frames * BYTES_A_FRAME + SPARE_BYTES
    free = shutil.disk_usage(workshop.state_dir).free
    if frames and free < needed:
        raise DiskFullError(
            f"Encoding {frames:,} frames anew needs {needed / 1e6:,.0f} MB on the disk of the"
            f" state folder, {free / 1e6:,.0f} MB are free.",
            hint="Make room, or set encoder.id back; until then the encoder stays as it is.",
            path=str(workshop.state_dir),
        )


def prepared_space(workshop: Workshop, encoder_id: str, progress: Progress) -> dict[str, Any]:
    """Make a network ready in a process of its own; `name`, `weights_sha256`, `dim` of its space.

    Raises:
        JobFailedError: It cannot be made ready.
    """
    parameters = {"encoder": encoder_id, "cache": str(encoder_cache(workshop))}
    module = "daemon.jobs.prepare_encoder_child"
    with workshop.processes.run(module, parameters, progress) as path:
        facts: dict[str, Any] = json.loads(path.read_text())
    return facts


def _new_run(workshop: Workshop, connection: Connection, to: SpaceRow) -> int:
    serving = spaces.serving_space(connection)
    sides = {
        side: {"space": space.id, "name": space.name, "encoder": space.encoder}
        for side, space in (("from", serving), ("to", to))
        if space is not None
    }
    return runs.create_run(connection, "encoder", [], now=workshop.wall(), parameters=sides)


def _change_over(workshop: Workshop, switch: Switch, space: SpaceRow, progress: Progress) -> None:
    """Let the new space serve, together with the first clustering in it."""
    workshop.make_ready(space)
    with workshop.db.read() as connection:
        clustered = meta.get(connection, LAST_KEY) is not None
    if clustered:

        def beside(connection: Connection) -> None:
            spaces.forget_foreign_measures(connection)
            _serve(workshop, connection, switch, space)

        recluster(workshop, progress, space_id=space.id, beside=beside)
        return
    with workshop.quiet():
        with workshop.db.write() as connection:
            _serve(workshop, connection, switch, space)
        workshop.serve(None)


def _serve(workshop: Workshop, connection: Connection, switch: Switch, space: SpaceRow) -> None:
    now = workshop.wall()
    spaces.serve_space(connection, space)
    spaces.store_switch(connection, None)
    spaces.tell_encoder(connection, space.encoder, space.name, "ready")
    known = spaces.known_gaps(connection, space.id)
    left_out = spaces.lacking(connection, space.id).tolist()
    spaces.note_gaps(connection, space.id, {i: LATE for i in left_out if i not in known}, now)
    if switch.undoes is not None:
        runs.set_state(connection, switch.undoes, "undone")
    if switch.run_id is not None:
        counts = {
            "frames": spaces.count_vectors(connection, space.id),
            "left_out": len(left_out),
            "entries": 0,
        }
        runs.set_counts(connection, switch.run_id, counts)
        runs.set_state(connection, switch.run_id, "applied")
        runs.note_finished(connection, switch.run_id, now, now - switch.started_at)


def run_to_the_end(
    workshop: Workshop, progress: Progress, stop: Callable[[], bool] = lambda: False
) -> bool:
    """Bring a change forward until it is done, in the foreground; whether one was made.

    Raises:
        StillwatchError: As `Advance.step`.
    """
    advance = Advance(workshop, wait_for_cameras=False)
    while not stop():
        outcome = advance.step(progress)
        if outcome in ("idle", "changed"):
            return outcome == "changed"
    return False
