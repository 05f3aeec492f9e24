"""Giving frames the vectors that they lack in a space: a child encodes, the daemon commits.

Used by a change of the encoder (daemon/jobs/encoder_switch.py) and, after it, for the frames that
could not be had at the time. Every batch is one transaction, so a kill costs one batch.
"""

import json
import os
import tempfile
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from daemon.encoders import registry
from daemon.jobs.child import Progress
from daemon.jobs.judge import load_judge
from daemon.jobs.placing import place_again
from daemon.jobs.workshop import Workshop
from storage import frames, spaces
from storage.modes import make_private_folder
from storage.spaces import SpaceRow


@dataclass(slots=True)
class Stretch:
    """What one stretch of work came to.

    `placeable`: frames that got a vector, without exact duplicates. `refused`: frame -> why it
    cannot have one. `exhausted`: everything was looked at. `reached`: cameras whose folder is
    there.
    """

    placeable: list[int] = field(default_factory=list)
    refused: dict[int, str] = field(default_factory=dict)
    exhausted: bool = False
    reached: frozenset[int] = frozenset()


def encoder_cache(workshop: Workshop) -> Path:
    """The folder of the converted networks."""
    return workshop.settings.encoder.cache or registry.default_cache_dir()


def embed_lacking(
    workshop: Workshop,
    space: SpaceRow,
    *,
    skip: Collection[int],
    seconds: float,
    progress: Progress,
) -> Stretch:
    """Encode frames on disk that have no vector in a space, in a process of its own.

    Args:
        workshop: What the job works with.
        space: The space; its encoder must be prepared.
        skip: Frames that are not tried.
        seconds: When to stop, so that other jobs get their turn.
        progress: Told frames done and in all, of this stretch.

    Raises:
        JobFailedError: The process failed; what was committed stays.
        JobStoppedError: The daemon stops; what was committed stays.
        DiskFullError: No room; what was committed stays.
    """
    stretch = Stretch()
    jobs = workshop.processes.folder
    make_private_folder(jobs)
    with tempfile.TemporaryDirectory(prefix="vectors-", dir=jobs) as name:
        folder = Path(name)

        def commit_what_is_there(stage: str, done: int, total: int) -> None:
            for path in sorted(folder.glob("*.npz")):
                stretch.placeable += _commit(workshop, space.id, path)
            progress(stage, done, total)

        parameters = _parameters(workshop, space)
        parameters |= {"skip": sorted(skip), "seconds": seconds, "folder": name}
        module = "daemon.jobs.reembed_child"
        with workshop.processes.run(module, parameters, commit_what_is_there) as path:
            outcome = json.loads(path.read_text())
    stretch.refused = {int(frame): str(why) for frame, why in outcome["refused"].items()}
    stretch.exhausted = bool(outcome["exhausted"])
    stretch.reached = frozenset(outcome["reached"])
    with workshop.db.write() as connection:
        spaces.note_gaps(connection, space.id, stretch.refused, workshop.wall())
    return stretch


def _parameters(workshop: Workshop, space: SpaceRow) -> dict[str, Any]:
    return {
        "state_dir": str(workshop.state_dir),
        "encoder": space.encoder,
        "cache": str(encoder_cache(workshop)),
        "threads": max(1, len(os.sched_getaffinity(0)) - 1),
        "space": space.name,
        "space_id": space.id,
        "ingest": workshop.settings.ingest.model_dump(mode="json"),
    }


def _commit(workshop: Workshop, space_id: int, path: Path) -> list[int]:
    """Store one batch; returns those of its frames that a clustering may place."""
    with np.load(path, allow_pickle=False) as stored:
        batch = {name: stored[name] for name in stored.files}
    ends = np.cumsum(batch["grey_bytes"]).tolist()
    sizes = batch["grey_bytes"].tolist()
    greys = [batch["greys"][e - n : e].tobytes() for e, n in zip(ends, sizes, strict=True)]
    tiles, shape = batch["tiles"], list(batch["tiles"].shape[1:])
    placeable = []
    with workshop.db.write() as connection:
        for row, frame_id in enumerate(batch["ids"].tolist()):
            signature = None
            if greys[row]:
                own = tiles[row].tobytes() if len(tiles) else None
                signature = (greys[row], own, shape if own is not None else None)
                placeable.append(frame_id)
            vector = batch["vectors"][row].tobytes()
            frames.store_vector(connection, frame_id, space_id, vector, signature)
    path.unlink()
    return placeable


def fill_gaps(workshop: Workshop, space: SpaceRow, *, tried: Collection[int]) -> Stretch:
    """Give frames a vector in the space that serves, and a place in its clustering.

    Frames lack one that arrived in the moment of a change, whose camera was away then, or that
    came back from where nobody could read them.

    Args:
        workshop: What the job works with.
        space: The space that serves.
        tried: Frames that cannot have one now.

    Raises:
        JobFailedError, JobStoppedError, DiskFullError: As `embed_lacking`.
    """
    stretch = embed_lacking(workshop, space, skip=tried, seconds=60.0, progress=_quiet)
    if stretch.placeable:
        judge = load_judge(workshop)
        with workshop.quiet(), workshop.db.write() as connection:
            place_again(connection, space.id, judge, stretch.placeable)
    return stretch


def _quiet(_stage: str, _done: int, _total: int) -> None:
    """A catch-up of a few frames has no onlooker."""
