"""A week of pictures delivered to a daemon that is killed again and again."""

import json
import random
import shutil
import threading
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import cv2

from storage.errors import StillwatchError
from tests.benchmarks.week_camera import Truth, WeekCamera, frame_name
from tests.end_to_end.process import Daemon, Site

DAY: Final = 86400.0
BACKLOG: Final = 80
"""Files that may wait to be recorded; the camera sends the next one when there are fewer."""
MOST_UNJUDGED: Final = 400
"""The same of frames that wait for dedup."""
PACE_SECONDS: Final = 0.02
"""Between two frames, where the daemon keeps up."""
LATEST_SECONDS: Final = 6.0
"""A kill comes up to this long after its frame: at any moment, not with an arrival."""
INTO_SECONDS: Final = 0.4
"""An aimed kill comes up to this long after the run that moves files has begun."""
SETTLED_SECONDS: Final = 600.0
LOOKS: Final = 4
"""Prune runs that are waited for at the end: to the trash, and from it."""
AIMED_SECONDS: Final = 20.0
"""Every second kill waits so long for a run that moves files, and strikes into it."""
_UNJUDGED: Final = "stage = 'embedded' AND judged = 0 AND coalesce(duplicate_kind, '') <> 'exact'"
_LOOK_SECONDS: Final = 0.01
_OPEN_OPERATIONS: Final = "SELECT 1 FROM journal WHERE state = 'intent' LIMIT 1"
_RUNS_THAT_MOVE: Final = (
    "SELECT 1 FROM runs WHERE kind IN ('filing', 'trash', 'prune')"
    " AND started_at IS NOT NULL AND finished_at IS NULL AND id > {} LIMIT 1"
)


def settings(
    every_seconds: float, trash_seconds: float, delete_seconds: float, files: int
) -> dict[str, Any]:
    """Settings of an owner who lets everything redundant go soon.

    Args:
        every_seconds: Between two dedup plans, each of which is filed and pruned.
        trash_seconds: Age at which a duplicate goes to the trash.
        delete_seconds: Time in the trash after which it is deleted.
        files: Most files that one run moves to the trash, or deletes.
    """
    return {
        "ingest": {"settle_seconds": 0.2},
        "clustering": {"first_at_frames": 100},
        "dedup": {"delay_seconds": 1.0, "every_seconds": every_seconds},
        "filing": {"enabled": True, "mode": "move", "brake_share": 1.0, "brake_files": 1_000_000},
        "prune": {
            "enabled": True,
            "trash_after_days": trash_seconds / DAY,
            "delete_after_days": delete_seconds / DAY,
            # A goal that cannot be met: prune looks after every plan, not once a day.
            "max_gb": 1e-6,
            "max_files_per_run": files,
            "max_share_per_day": 0.99,
            "brake_share": 0.99,
            "brake_files": 1_000_000,
        },
    }


def rendered(folder: Path, frames: int, seed: int) -> list[Truth]:
    """Draw the week into a folder, or take it from there; the truths in order of time."""
    folder.mkdir(parents=True, exist_ok=True)
    known = folder / "truth.json"
    if known.exists():
        return [_truth(stored) for stored in json.loads(known.read_text())]
    cv2.setNumThreads(1)
    camera = WeekCamera(frames, seed)
    truths = []
    for index in range(frames):
        data, truth = camera.shoot(index)
        (folder / frame_name(index)).write_bytes(data)
        truths.append(truth)
    known.write_text(json.dumps([asdict(truth) for truth in truths]))
    return truths


def _truth(stored: dict[str, Any]) -> Truth:
    box, tone = (tuple(stored.pop(name)) for name in ("box", "tone"))
    return Truth(box=box, tone=tone, **stored)


class Camera(threading.Thread):
    """Sends the pictures of a folder, half of them by temporary name and rename.

    Args:
        site: Where to.
        source: Folder of the rendered pictures.
        names: Which of them, in order.
    """

    def __init__(self, site: Site, source: Path, names: list[str]) -> None:
        super().__init__(name="camera")
        self._site = site
        self._source = source
        self.names = names
        self.delivered = 0
        self.ended = threading.Event()

    def run(self) -> None:
        """Send one after the other, never more than the daemon can take in."""
        for number, name in enumerate(self.names):
            while _has_enough(self._site, number):
                if self.ended.wait(0.2):
                    return
            if self.ended.wait(PACE_SECONDS):
                return
            target = self._site.folder / name
            if number % 2:
                hidden = target.with_name(f".{name}.part")
                shutil.copyfile(self._source / name, hidden)
                hidden.rename(target)
            else:
                shutil.copyfile(self._source / name, target)
            self.delivered += 1


def _has_enough(site: Site, delivered: int) -> bool:
    return delivered - recorded(site) >= BACKLOG or _count(site, _UNJUDGED) >= MOST_UNJUDGED


def recorded(site: Site) -> int:
    """Rows of frames that are decided; 0 while there is no database."""
    return _count(site, "stage <> 'pending'")


def _count(site: Site, condition: str) -> int:
    if not (site.state / "stillwatch.db").exists():
        return 0
    try:
        ((count,),) = site.table(f"SELECT count(*) FROM frames WHERE {condition}")
    except StillwatchError:  # its tables are being made
        return 0
    return int(count)


@dataclass(slots=True)
class Killed:
    """The kills so far, and how many of them struck what.

    `moving`: a run that moves or deletes files; `open_operations`: between two steps of one file;
    `starting`: a daemon that was not ready yet.
    """

    kills: int = 0
    moving: int = 0
    open_operations: int = 0
    starting: int = 0


def live(site: Site, camera: Camera, kills: int, seed: int) -> Killed:
    """Run the daemon until everything is delivered, judged and filed; kill it on the way.

    The moments are drawn beforehand: a frame of the week and some seconds, and for every second
    one a part of a second into the next run that moves files. Where two of them lie close together
    the second one strikes while the daemon starts.
    """
    chance = random.Random(seed)
    total = len(camera.names)
    goals = sorted(chance.randrange(total // 50, total) for _ in range(kills))
    killed = Killed()
    camera.start()
    try:
        for number, goal in enumerate(goals):
            aimed = bool(number % 2)
            later = chance.uniform(0, INTO_SECONDS if aimed else LATEST_SECONDS)
            _run_and_kill(site, camera, goal, later, killed, aimed=aimed)
        with site.daemon() as daemon:
            daemon.wait_until(
                lambda: recorded(site) >= total, "all frames are recorded", SETTLED_SECONDS * 10
            )
            _until_quiet(site, daemon)
    finally:
        camera.ended.set()
        camera.join()
    return killed


def _run_and_kill(
    site: Site, camera: Camera, goal: int, later: float, killed: Killed, *, aimed: bool
) -> None:
    newest = _newest_run(site)
    daemon = Daemon(site, (), {}, (site.folder,))
    try:
        daemon.wait_until(
            lambda: camera.delivered >= goal, f"frame {goal} has come", SETTLED_SECONDS * 10
        )
        if aimed:
            _wait_for_moves(site, newest)
        camera.ended.wait(later)
        killed.starting += "filing is o" not in daemon.said
        assert daemon.process.poll() is None, daemon.said
    finally:
        daemon.kill()
    killed.kills += 1
    killed.moving += _moves(site, newest)
    killed.open_operations += recorded(site) > 0 and bool(site.table(_OPEN_OPERATIONS))


def _moves(site: Site, newest: int) -> bool:
    """Whether a run after that one is moving files; runs that were killed seem to for ever."""
    return recorded(site) > 0 and bool(site.table(_RUNS_THAT_MOVE.format(newest)))


def _newest_run(site: Site) -> int:
    return int(site.table("SELECT coalesce(max(id), 0) FROM runs")[0][0]) if recorded(site) else 0


def _wait_for_moves(site: Site, newest: int) -> None:
    """Until a run after that one moves files, or not for long."""
    deadline = time.monotonic() + AIMED_SECONDS
    while time.monotonic() < deadline:
        if _moves(site, newest):
            return
        time.sleep(_LOOK_SECONDS)


def _until_quiet(site: Site, daemon: Daemon) -> None:
    """Until every frame is judged, and a plan has been filed and pruned after that."""
    daemon.wait_until(
        lambda: _count(site, _UNJUDGED) == 0, "every frame is judged", SETTLED_SECONDS
    )
    for _ in range(LOOKS):
        before = site.status()["last_prune"]
        daemon.wait_until(
            partial(_has_pruned_since, site, before), "prune has looked again", SETTLED_SECONDS
        )


def _has_pruned_since(site: Site, before: object) -> bool:
    return bool(site.status()["last_prune"] != before)
