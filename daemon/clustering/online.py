"""Novelty on arrival: every frame is measured against all that was seen before it.

A frame is novel when its scene is unlike every reference, or when a place in it is unlike all that
the camera has shown there; both share one promise, the false-novel rate. References are the
representatives of the last clustering, those of no cluster too, and every new view since. A novel
view becomes one when its event is over, without a cluster: what was announced once is not
announced on each return, or no promise could be kept (docs/adr/0008-novelty.md).
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from daemon.clustering.answers import (
    UNJUDGED,
    by_clusters_alone,
    judged,
    same_view,
    shared_cluster,
)
from daemon.clustering.calibration import limit_score
from daemon.clustering.camera_judge import CameraJudge, Sight
from daemon.clustering.novelty_event import Ruling, View
from daemon.clustering.places import PatchBank, PlaceScore
from daemon.clustering.references import (
    NO_CLUSTER,
    Nearest,
    Reference,
    ReferenceFrames,
    VectorSearch,
)
from daemon.messages import ArrivingFrame, Assignment, CameraNovelty, FloatArray, References
from storage.errors import EncoderMismatchError


class OnlineNovelty:
    """Assigns arriving frames to clusters and says which of them are novel.

    Not for several threads at once. Every call of `assign` is followed by `learned` once its
    frames are recorded.
    """

    def __init__(
        self,
        index: VectorSearch,
        references: References,
        cameras: Mapping[int, CameraNovelty],
        *,
        false_novel_rate: float,
        collapse_distance: float,
    ) -> None:
        """Go on from a clustering and from what is known of the cameras.

        Args:
            index: Finds the references by cosine distance; grows with them.
            references: What is known of the frames in the index.
            cameras: By camera id; a camera that is absent starts afresh.
            false_novel_rate: Promised share of usual frames that are called novel.
            collapse_distance: Cosine distance within which two frames show one view.

        Raises:
            ValueError: A bank of places that is damaged.
        """
        self._known = references
        self._references = ReferenceFrames(index, references)
        self._rate, self._collapse = false_novel_rate, collapse_distance
        self._judges: dict[int, CameraJudge] = {}
        self._banks: dict[int, PatchBank] = {}
        self._unrecorded: list[Reference] = []
        for camera_id, known in cameras.items():
            self._start(camera_id, known)

    @property
    def space(self) -> str:
        """The embedding space of the references."""
        return self._known.space

    def assign(self, frames: Sequence[ArrivingFrame]) -> list[Assignment]:
        """Judge a batch in its order, and learn from it.

        A frame without finite vector, or without any reference to measure it against, is neither
        assigned nor novel.

        Raises:
            EncoderMismatchError: Vectors of another dimension.
            ValueError: A tile map of another shape than the camera's.
        """
        self.learned(())
        if not frames:
            return []
        vectors = np.stack([frame.vector for frame in frames])
        if vectors.shape[1] != self._references.dim:
            raise EncoderMismatchError(
                f"Vectors of {vectors.shape[1]} dimensions cannot be compared with"
                f" {self._references.dim}.",
                hint="Use one encoder, or recluster with the new one.",
            )
        ids, distances = self._references.search(vectors)
        return [
            self._assign(position, frame, ids[position], distances[position])
            for position, frame in enumerate(frames)
        ]

    def learned(self, frame_ids: Sequence[int | None]) -> None:
        """The frames of the last batch are recorded: later ones may be measured against them.

        Args:
            frame_ids: The id of each frame in the order of the batch; None for one that brought
                no new embedding. An empty sequence: the batch was not recorded.
        """
        if not self._unrecorded:
            return
        for reference in self._unrecorded:
            if reference.position < len(frame_ids):
                reference.frame_id = frame_ids[reference.position]
        dropped = [one for one in self._unrecorded if one.frame_id is None]
        for judge in self._judges.values():
            judge.forget(dropped)
        self._references.settle(dropped)
        self._unrecorded = []

    def teach(self, camera_id: int, tile_maps: Sequence[NDArray[np.int8]]) -> None:
        """Make a camera's places known: frames, in their order, that are usual.

        Args:
            camera_id: A new one starts afresh.
            tile_maps: int8 (rows, columns, channels) each.
        """
        judge, bank = self._camera(camera_id)
        for tiles in tile_maps:
            seen = bank.score(tiles)
            if seen is not None and bank.ready:
                judge.place.add(seen.score)
            bank.grow(tiles)

    def look(self, vectors: FloatArray) -> list[Assignment]:
        """Where frames belong by the clusters alone; nothing is learnt and no promise is kept.

        For frames that were judged before, or are looked at again by a human's wish.

        Args:
            vectors: (n, dim) float32 unit length.

        Returns:
            The nearest cluster of each (`nearest_cluster_id`), assigned where that is within the
            limit that all cameras' scores give, else novel.
        """
        limit = limit_score(self._known.scores, self._rate)
        return [
            by_clusters_alone(self._references.nearest_clustered(vector), limit)
            for vector in vectors
        ]

    def camera(self, camera_id: int) -> CameraNovelty:
        """What is known of a camera now, to be stored; its bank makes this cost milliseconds."""
        judge, bank = self._camera(camera_id)
        return CameraNovelty(
            alpha=judge.alpha,
            scene_scores=judge.scene.in_time,
            place_scores=judge.place.in_time,
            bank=bank.to_bytes() if len(bank) else None,
        )

    def alpha(self, camera_id: int) -> float:
        """The limit of the camera's p-values now."""
        return self._camera(camera_id)[0].alpha

    def _start(self, camera_id: int, known: CameraNovelty) -> None:
        bank = PatchBank() if known.bank is None else PatchBank.from_bytes(known.bank)
        self._judges[camera_id] = CameraJudge(known, self._rate, self._known.scores)
        self._banks[camera_id] = bank

    def _camera(self, camera_id: int) -> tuple[CameraJudge, PatchBank]:
        if camera_id not in self._judges:
            self._start(camera_id, CameraNovelty())
        return self._judges[camera_id], self._banks[camera_id]

    def _assign(
        self,
        position: int,
        frame: ArrivingFrame,
        ids: NDArray[np.int64],
        distances: NDArray[np.float32],
    ) -> Assignment:
        judge, bank = self._camera(frame.camera_id)
        if not np.isfinite(frame.vector).all():
            return UNJUDGED
        self._references.add(judge.next_frame())
        near = self._references.nearest(frame.vector, ids, distances)
        if near is None:
            return UNJUDGED
        place = None
        if frame.tiles is not None and bank.ready:
            place = bank.score(frame.tiles)
        again = self._seen_in_event(judge, frame.vector, near)
        if again is None:
            answer = self._judge(judge, position, frame.vector, near, place)
        else:
            judge.join_event(None, again.ruling, like_event=True)
            answer = same_view(near, again)
        if frame.tiles is not None and answer.novel:
            bank.withhold(frame.tiles)
        elif frame.tiles is not None:
            bank.grow(frame.tiles)
        return answer

    def _judge(
        self,
        judge: CameraJudge,
        position: int,
        vector: FloatArray,
        near: Nearest,
        place: PlaceScore | None,
    ) -> Assignment:
        """The verdict on a frame that shows no view of the open event again; learn from it."""
        sight = self._sight(judge, near, vector, place)
        ruling = judge.rule(sight)
        judge.learn(sight, ruling)
        cluster_id = shared_cluster(near, sight, ruling)
        reference = None
        if not sight.burst:
            # a doubtful frame must not carry a loose scale any further
            loose = cluster_id == NO_CLUSTER
            scale = min(near.scale, self._known.usual) if loose else near.scale
            reference = Reference(vector, cluster_id, scale, position)
        self._grow(judge, sight, ruling, near, reference)
        return judged(near, cluster_id, sight, ruling, place, reference)

    def _seen_in_event(self, judge: CameraJudge, vector: FloatArray, near: Nearest) -> View | None:
        """The view of the open event that a frame is another frame of, if any."""
        found = None if judge.event is None else judge.event.nearest(vector)
        if found is None or found[0] > min(self._collapse, near.distance):
            return None
        return found[1]

    def _sight(
        self, judge: CameraJudge, near: Nearest, vector: FloatArray, place: PlaceScore | None
    ) -> Sight:
        found = None if judge.event is None else judge.event.nearest(vector)
        like_event = found is not None and found[0] < near.distance
        if found is not None and like_event:
            like_event = found[0] <= judge.event_reach(found[1].reference.scale)
        return Sight(
            distance=near.distance,
            scale=near.scale,
            burst=near.distance <= self._collapse,
            place_score=None if place is None else place.score,
            like_event=like_event,
            spared=near.cluster_id in self._known.ignored,
        )

    def _grow(
        self,
        judge: CameraJudge,
        sight: Sight,
        ruling: Ruling,
        near: Nearest,
        new: Reference | None,
    ) -> None:
        """Open, go on with or end an event; a new view becomes a reference at once or after it."""
        view = None
        if new is not None:
            self._unrecorded.append(new)
            view = View(new, near.distance, ruling) if ruling.novelty == "scene" else None
        if ruling.novelty is not None:
            like_event = sight.like_event or view is None
            self._references.add(judge.join_event(view, ruling, like_event=like_event))
        if new is not None and view is None:
            self._references.add([new])
