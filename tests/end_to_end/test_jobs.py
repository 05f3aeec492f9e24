"""What the command line asks for, with the daemon up and without one; and what runs by itself."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from typing import Any

import cv2
import numpy as np
import pytest

from daemon.demo.render import render_jpeg
from tests.end_to_end.process import Daemon, Row, Site, decided, facts, fill, picture

PICK_UP_SECONDS = 0.5
COUNT = 60
SETTINGS = {
    "ingest": {"settle_seconds": 0.2},
    "clustering": {"first_at_frames": 50, "growth_share": 5.0},
    "dedup": {"delay_seconds": 0.2, "every_seconds": 3000.0},
}
STRANGE = picture(5, (640, 480))
"""A scene that nothing before looked like."""


@cache
def scenes() -> dict[str, bytes]:
    """Thirty frames each of two yards."""
    return {
        f"{name}-{number:02d}.jpg": render_jpeg(100 + number, seed)
        for name, seed in (("front", 7), ("back", 21))
        for number in range(COUNT // 2)
    }


def brighter(data: bytes) -> bytes:
    """The same scene with other bytes."""
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    done, encoded = cv2.imencode(".jpg", cv2.convertScaleAbs(image, alpha=1.0, beta=6))
    assert done
    return bytes(encoded)


@pytest.fixture
def learned(site: Site) -> Site:
    """Two known scenes, clustered and planned by the daemon on its own, and a strange frame."""
    site.write_settings(SETTINGS)
    with site.daemon() as daemon:
        fill(site.folder, scenes())
        daemon.wait_until(lambda: site.status()["last_dedup"], "the first clustering and plan")
        deliver(site, daemon, {"strange.jpg": STRANGE})
    return site


def deliver(site: Site, daemon: Daemon, pictures: dict[str, bytes]) -> None:
    before = site.status()["frames"]["total"]
    fill(site.folder, pictures)
    daemon.wait_until(decided(site, before + len(pictures)), "the new pictures are recorded")


def ask(site: Site, *arguments: str) -> Any:
    """A command that must end with 0; its JSON."""
    done = site.cli(*arguments, "--json")
    assert done.code == 0, done.out
    return done.json()


@contextmanager
def live(site: Site) -> Iterator[None]:
    """A daemon that is up and has looked at everything."""
    with site.daemon() as daemon:
        scanned = "SELECT 1 FROM cameras, meta WHERE key = 'daemon'"
        scanned += " AND last_scan_at > json_extract(value, '$.started_at')"
        daemon.wait_until(lambda: site.table(scanned), "the first scan has ended")
        yield


def test_the_first_clustering_runs_by_itself_and_later_strangers_are_novel(site: Site) -> None:
    site.write_settings(SETTINGS)
    with site.daemon() as daemon:
        deliver(site, daemon, dict(list(scenes().items())[:49]))
        assert {row["state"] for row in site.rows()} == {"learning"}
        assert site.status()["cameras"][0]["state"] == "learning"
        assert site.status()["last_recluster"] is None
        fill(site.folder, scenes())
        daemon.wait_until(lambda: site.status()["clusters"] == 2, "two scenes are found")
        daemon.wait_until(lambda: site.status()["last_dedup"], "a plan follows")
        daemon.wait_until(
            lambda: site.status()["cameras"][0]["state"] == "watching", "the camera has learned"
        )
        assert site.status()["frames"]["learning"] == 0
        deliver(site, daemon, {"strange.jpg": STRANGE, "usual.jpg": render_jpeg(131, 7)})
    by_path = site.by_path()
    assert (by_path["strange.jpg"]["state"], by_path["strange.jpg"]["novelty"]) == (
        "novel",
        "scene",
    )
    assert by_path["usual.jpg"]["cluster"] in ("c1", "c2")
    assert by_path["usual.jpg"]["distance"] < by_path["usual.jpg"]["max_distance"]

    labels = {row["id"]: (row["state"], row["cluster"]) for row in site.rows()}
    with live(site):
        assert {row["id"]: (row["state"], row["cluster"]) for row in site.rows()} == labels
    with site.daemon() as daemon:  # a restart serves the same clustering
        deliver(site, daemon, {"stranger.jpg": picture(6, (640, 480))})
        deliver(site, daemon, {"usual-2.jpg": render_jpeg(132, 21)})
    by_path = site.by_path()
    assert by_path["stranger.jpg"]["state"] == "novel"
    assert by_path["usual-2.jpg"]["cluster"] not in (None, by_path["usual.jpg"]["cluster"])
    novel = {row["path"] for row in site.cli("novel", "--json").json_lines()}
    assert novel == {"strange.jpg", "stranger.jpg"}
    site.verify()


@pytest.mark.parametrize("up", [True, False], ids=["daemon up", "daemon down"])
def test_every_job_can_be_asked_for(learned: Site, up: bool) -> None:
    site = learned
    before = facts(site.folder)
    with live(site) if up else nullcontext():
        made = ask(site, "recluster")
        assert set(made) == {"run", "clusters", "noise", "frames", "seconds"}
        assert (made["clusters"], made["frames"]) == (2, COUNT + 1)

        plan = ask(site, "dedup", "plan", "--new")
        assert set(plan) == {"run", "groups", "frames_redundant", "bytes_redundant"}
        members = [member for group in plan["groups"] for member in group["members"]]
        assert len(members) == plan["frames_redundant"] >= 20

        done = ask(site, "dedup", "apply", "--yes")
        assert (done["run"], done["applied"], done["skipped"]) == (plan["run"], len(members), 0)
        filed = {row["id"] for row in site.rows() if row["path"].startswith("stillwatch/dup")}
        assert filed == {member["frame"] for member in members}
        site.verify()
        undone = ask(site, "undo", plan["run"], "--yes")
        assert (undone["restored"], undone["skipped"]) == (len(members), 0)
        assert facts(site.folder) == before
        assert ask(site, "undo", plan["run"], "--yes")["restored"] == 0
        again = ask(site, "dedup", "apply")
        assert again["frames"] == len(members), "what was taken back can be applied again"

        named = ask(site, "clusters", "rename", "c1", "front yard", "--yes")
        assert (named["cluster"], named["name"]) == ("c1", "front yard")
        assert {row["name"] for row in site.cli("clusters", "--json").json_lines()} == {
            *("front yard", None)
        }
        ask(site, "undo", named["run"], "--yes")
        assert {row["name"] for row in site.cli("clusters", "--json").json_lines()} == {None}

        refused = site.cli("clusters", "rename", "c99", "nothing", "--yes", "--json")
        assert (refused.code, refused.json()["error"]["code"]) == (1, "not_found")
    if up:
        waits = site.table("SELECT kind, started_at - created_at FROM requests")
        assert len(waits) == 7
        assert max(seconds for _, seconds in waits) <= PICK_UP_SECONDS, waits
    else:
        assert site.table("SELECT * FROM requests") == []
    site.verify()


@pytest.mark.parametrize("up", [True, False], ids=["daemon up", "daemon down"])
def test_a_novel_frame_is_accepted_or_dismissed(learned: Site, up: bool) -> None:
    site = learned
    strange: Row = site.by_path()["strange.jpg"]
    assert strange["state"] == "novel"
    with live(site) if up else nullcontext():
        dismissed = ask(site, "novel", "dismiss", strange["id"], "--yes")
        row = site.by_path()["strange.jpg"]
        assert (row["state"], row["cluster"]) == ("assigned", dismissed["cluster"])
        assert row["cluster"] in ("c1", "c2")
        again = site.cli("novel", "dismiss", strange["id"], "--yes", "--json")
        assert (again.code, again.json()["error"]["code"]) == (1, "conflict")
        ask(site, "undo", dismissed["run"], "--yes")
        assert site.by_path()["strange.jpg"]["state"] == "novel"
        accepted = ask(site, "novel", "accept", strange["id"], "--yes")
        row = site.by_path()["strange.jpg"]
        assert (row["state"], row["cluster"]) == ("assigned", accepted["cluster"])
        assert row["cluster"] not in ("c1", "c2")
    with site.daemon() as daemon:  # what was accepted is expected from now on
        deliver(site, daemon, {"again.jpg": brighter(STRANGE)})
    assert site.by_path()["again.jpg"]["cluster"] == accepted["cluster"]
    site.verify()


def test_what_dismisses_an_alarm_does_not_hide_the_next_one(learned: Site) -> None:
    site = learned
    ask(site, "novel", "dismiss", site.by_path()["strange.jpg"]["id"], "--yes")
    ask(site, "recluster")
    with site.daemon() as daemon:
        deliver(site, daemon, {"again.jpg": brighter(STRANGE)})
    assert site.by_path()["again.jpg"]["state"] == "novel"


def test_status_check_tells_how_it_is(site: Site) -> None:
    def check() -> int:
        return site.cli("status", "--check", "--json").code

    assert check() == 10
    site.once()
    assert check() == 5
    assert site.cli("status").code == 0
    fill(site.folder, {"shot.jpg": picture(1)})
    with site.daemon() as daemon:
        daemon.wait_until(decided(site, 1), "it is recorded")
        assert check() == 0
        away = site.folder.with_name("away")
        site.folder.rename(away)
        daemon.wait_until(lambda: site.status()["state"] == "degraded", "the absence is noticed")
        assert check() == 4
        assert site.status()["cameras"][0]["state"] == "offline"
        assert site.cli("status").code == 0
        assert site.status()["frames"]["missing"] == 0  # an absent root concludes nothing
        away.rename(site.folder)
        fill(site.folder, {"later.jpg": picture(2)})
        daemon.wait_until(decided(site, 2), "the folder is watched again")
        daemon.wait_until(lambda: site.status()["state"] == "running", "all is well")
        assert check() == 0
    assert check() == 5
    site.verify()
