"""A new kind of scene, from files to a cluster with an event, with no recluster in between."""

import json

import cv2
import numpy as np

from daemon.demo.render import render_jpeg
from tests.end_to_end.process import Site, decided, fill, picture

SETTINGS = {
    "ingest": {"settle_seconds": 0.2},
    "clustering": {"first_at_frames": 60, "growth_share": 1000.0, "novel_frames": 100_000},
    "dedup": {"every_seconds": 3000.0},
}


def frames_of(name: str, seed: int, count: int) -> dict[str, bytes]:
    return {f"{name}-{n:02d}.jpg": render_jpeg(100 + n, seed) for n in range(count)}


def frames_of_a_wall(count: int) -> dict[str, bytes]:
    """What a camera sees that was turned to a painted wall, in light that changes."""
    image = cv2.imdecode(np.frombuffer(picture(5, (640, 480)), np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    frames = {}
    for number in range(count):
        lit = cv2.convertScaleAbs(image, alpha=0.7 + 0.02 * number, beta=number)
        done, data = cv2.imencode(".jpg", lit)
        assert done
        frames[f"wall-{number:02d}.jpg"] = bytes(data)
    return frames


def test_the_daemon_finds_a_new_scene_by_itself(site: Site) -> None:
    site.write_settings(SETTINGS)
    fill(site.folder, frames_of("front", 7, 30) | frames_of("back", 21, 30))
    with site.daemon() as daemon:
        daemon.wait_until(lambda: site.status()["clusters"] == 2, "two scenes are known")
        daemon.wait_until(decided(site, 60), "every frame is recorded")
        known = {row["id"]: row["cluster"] for row in site.rows()}
        fill(site.folder, frames_of_a_wall(24))
        daemon.wait_until(lambda: site.status()["clusters"] == 3, "the third is born", 90)
    wall = [row for row in site.rows() if row["path"].startswith("wall")]
    (born,) = {row["cluster"] for row in wall} - {None}
    assert sum(row["cluster"] == born for row in wall) >= 15
    assert {row["state"] for row in wall if row["cluster"] == born} <= {
        "assigned",
        "near_duplicate",
    }
    assert {row["id"]: row["cluster"] for row in site.rows() if row["id"] in known} == known
    assert len(site.runs("recluster")) == 1
    (run,) = site.runs("pool")
    ((data,),) = site.table(f"SELECT data FROM events WHERE cluster_id = {born.removeprefix('c')}")
    assert json.loads(data)["run"] == run
    told = site.cli("clusters", "history", born)
    assert "from the novel frames" in told.out
    site.verify()
