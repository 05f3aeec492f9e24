"""The tables. All times are seconds since the epoch (UTC, REAL) unless the name says `_ns`.

Paths are BLOBs of the bytes below the camera's root. `frames.state` is generated from the facts
(storage/states.py). The same models serve PostgreSQL; partial indexes and the trigger are given
for both or added by the migration. One module a subject; queries and Alembic import the tables
from here, so that the metadata is whole for everyone who has one of them.
"""

from storage.models.base import Base, storable_time
from storage.models.cameras import Camera, CameraNovelty, Checkpoint
from storage.models.frames import Frame
from storage.models.notes import Decision, Event, Meta, Request
from storage.models.runs import JournalEntry, PlanEntry, Run
from storage.models.spaces import Calibration, Cluster, Embedding, Signature, Space

__all__ = [
    "Base",
    "Calibration",
    "Camera",
    "CameraNovelty",
    "Checkpoint",
    "Cluster",
    "Decision",
    "Embedding",
    "Event",
    "Frame",
    "JournalEntry",
    "Meta",
    "PlanEntry",
    "Request",
    "Run",
    "Signature",
    "Space",
    "storable_time",
]
