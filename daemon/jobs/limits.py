"""The change score up to which a camera's frames count as near-duplicates, from the database."""

import os

from sqlalchemy import Connection

from daemon.dedup.threshold import limit_for
from daemon.settings import Settings
from storage.cameras import CameraRow
from storage.change_scores import change_scores


def quiet_found(settings: Settings, camera: CameraRow) -> float | None:
    """The share of the quiet frames that the owner wants found; None: as many as is safe."""
    root = os.fsdecode(camera.root)
    for described in settings.camera:
        if described.quiet_found is not None and os.path.realpath(described.root) == root:
            return described.quiet_found
    return settings.dedup.quiet_found


def ceiling(settings: Settings, *, tile_map: bool) -> float:
    """The largest safe limit, by whether the encoder's tile map takes part in the score."""
    return settings.dedup.max_change if tile_map else settings.dedup.max_change_pixels


def camera_limit(
    connection: Connection, settings: Settings, camera: CameraRow, *, tile_map: bool = True
) -> float:
    """Today's limit of a camera: what the owner chose, never above the safe ceiling.

    Verdicts are made with the ceiling, so that they depend on the frames alone; this limit is for
    planning: a stored verdict with a higher score is none.

    Args:
        connection: To read the camera's newest scores with.
        settings: The owner's.
        camera: Which one.
        tile_map: Whether the encoder in use has a tile map.
    """
    most = ceiling(settings, tile_map=tile_map)
    wanted = quiet_found(settings, camera)
    if wanted is None:
        return most
    return limit_for(change_scores(connection, camera.id), wanted, most)
