"""A run of novel frames of one camera: something is going on."""

from dataclasses import dataclass, field
from typing import Final, Literal

import numpy as np

from daemon.clustering.references import Reference
from daemon.messages import FloatArray

CONFIRMING: Final = 2
"""Far frames that confirm an event."""
GAP: Final = 3
"""Frames without news that an event outlasts."""
MOST_VIEWS: Final = 200
"""Views after which what is new has come to stay, and the event is over."""


@dataclass(frozen=True, slots=True)
class Ruling:
    """The verdict on a frame; `novelty`, `p_value`, `alpha`, `max_distance` as in Assignment.

    `usual_score`: up to this distance in scales it shares its reference's cluster, by the promised
    rate. `far`: far beyond everything usual. `lasting`: far, or inside a confirmed event; it
    teaches the camera nothing and leaves alpha alone.
    """

    novelty: Literal["scene", "place"] | None
    usual_score: float
    far: bool
    lasting: bool
    p_value: float | None
    alpha: float
    max_distance: float


@dataclass(frozen=True, slots=True)
class View:
    """A new view with its distance to the nearest reference, and the verdict on it."""

    reference: Reference
    distance: float
    ruling: Ruling


@dataclass(slots=True)
class Event:
    """The views that an event has shown; `last`: number of its last frame."""

    views: list[View] = field(default_factory=list)
    far_frames: int = 0
    last: int = 0

    @property
    def confirmed(self) -> bool:
        """Whether it is beyond doubt."""
        return self.far_frames >= CONFIRMING

    def is_over(self, frame: int) -> bool:
        """Whether frame number `frame` cannot belong to it any more."""
        return frame - self.last > GAP or len(self.views) >= MOST_VIEWS

    def nearest(self, vector: FloatArray) -> tuple[float, View] | None:
        """Cosine distance to the nearest view, and that view; None without any."""
        if not self.views:
            return None
        similar = np.stack([view.reference.vector for view in self.views]) @ vector
        row = int(np.argmax(similar))
        return max(0.0, 1.0 - float(similar[row])), self.views[row]
