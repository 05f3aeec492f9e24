"""How full the disks are, and how much must go to reach the owner's goal. Reads only."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from daemon.filing.redundancy import Shortfall
from daemon.settings import PruneSettings
from storage.errors import RootOfflineError
from storage.root_guard import GuardedRoot

GIGABYTE: Final = 10**9


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume:
    """A filesystem with cameras on it; bytes. `free`: for whoever is not root."""

    size: int
    free: int


def measure(roots: Mapping[int, GuardedRoot]) -> tuple[dict[int, Volume], dict[int, int]]:
    """(device -> its room, camera id -> device) of the cameras whose folder is there."""
    volumes: dict[int, Volume] = {}
    cameras: dict[int, int] = {}
    for camera_id, root in roots.items():
        try:
            with root.opened() as fd:
                device = os.fstat(fd).st_dev
                room = os.fstatvfs(fd)
        except RootOfflineError:
            continue
        volumes[device] = Volume(
            size=room.f_blocks * room.f_frsize, free=room.f_bavail * room.f_frsize
        )
        cameras[camera_id] = device
    return volumes, cameras


def shortfall(
    settings: PruneSettings,
    volumes: Mapping[int, Volume],
    cameras: Mapping[int, int],
    pictures: int,
) -> Shortfall:
    """The bytes to be freed on each filesystem and in all.

    Args:
        settings: The owner's goals.
        volumes: Device -> its room.
        cameras: Camera id -> device.
        pictures: Bytes that all frames on disk take, the trash among them.
    """
    by_volume = {}
    for device, volume in volumes.items():
        wanted = max(
            (settings.keep_free_gb or 0) * GIGABYTE,
            (settings.keep_free_percent or 0) / 100 * volume.size,
        )
        by_volume[device] = max(0, round(wanted) - volume.free)
    overall = 0
    if settings.max_gb is not None:
        overall = max(0, pictures - round(settings.max_gb * GIGABYTE))
    return Shortfall(by_volume=by_volume, volumes=cameras, overall=overall)
