"""Changing the encoder: two real networks, a real daemon, kills, arrivals, and the way back."""

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
from sqlalchemy import text

from daemon.demo.render import render_jpeg
from storage.engine import Database
from tests.end_to_end.process import Daemon, Row, Site, decided, fill, picture

FLOAT32, INT8 = "efficientnet_lite0", "efficientnet_lite0_int8"
HALF = 30


def settings(encoder: str) -> dict[str, dict[str, object]]:
    return {
        "ingest": {"settle_seconds": 0.2},
        "encoder": {"id": encoder},
        "clustering": {"first_at_frames": 50, "growth_share": 5.0},
        "dedup": {"delay_seconds": 0.2, "every_seconds": 3000.0},
    }


@cache
def scenes(first: int = 0, last: int = HALF) -> dict[str, bytes]:
    """Frames of two yards."""
    return {
        f"{name}-{number:03d}.jpg": render_jpeg(100 + number, seed)
        for name, seed in (("front", 7), ("back", 21))
        for number in range(first, last)
    }


@pytest.fixture
def clustered(site: Site) -> Site:
    """Two scenes, one of them named, encoded by float32 and clustered."""
    site.write_settings(settings(FLOAT32))
    fill(site.folder, scenes())
    found = site.once()
    assert found["clusters"] == 2
    assert site.cli("clusters", "rename", "c1", "front door", "--yes").code == 0
    return site


def vectors(site: Site) -> dict[str, int]:
    """Encoder -> frames with a vector in its space."""
    sql = (
        "SELECT encoder, count(embeddings.frame_id) FROM spaces"
        " LEFT JOIN embeddings ON space_id = spaces.id GROUP BY spaces.id"
    )
    return dict(site.table(sql))


def serving(site: Site) -> Any:
    return site.status()["encoder"]["id"]


def serves(site: Site, encoder: str) -> Callable[[], bool]:
    """Whether that encoder serves and its change is over."""

    def holds() -> bool:
        told = site.status()["encoder"]
        return bool(told["id"] == encoder and told["state"] == "ready")

    return holds


def places(site: Site) -> dict[str, Any]:
    return {path: (row["id"], row["cluster"]) for path, row in site.by_path().items()}


def changed_to(site: Site, encoder: str, daemon: Daemon) -> None:
    daemon.wait_until(serves(site, encoder), f"{encoder} serves")


def run_of(site: Site) -> str:
    return site.runs("encoder")[-1]


def encoder_rows(site: Site) -> dict[str, Row]:
    return {row["id"]: row for row in site.cli("encoders", "--json").json_lines()}


def test_it_changes_in_the_background_and_names_and_ids_stay(clustered: Site) -> None:
    site = clustered
    before = places(site)
    site.write_settings(settings(INT8))
    with site.daemon() as daemon:
        assert "changing the encoder" in daemon.said
        changed_to(site, INT8, daemon)
        assert vectors(site) == {FLOAT32: 2 * HALF, INT8: 2 * HALF}
        assert places(site) == before
        fill(site.folder, scenes(HALF, HALF + 2))
        daemon.wait_until(decided(site, 2 * HALF + 4), "new pictures are recorded")
        assert vectors(site) == {FLOAT32: 2 * HALF, INT8: 2 * HALF + 4}
        daemon.wait_until(lambda: site.status()["last_dedup"], "the verdicts follow")
    names = {row["id"]: row["name"] for row in site.cli("clusters", "--json").json_lines()}
    assert names == {"c1": "front door", "c2": None}
    assert site.table("SELECT state FROM runs WHERE kind = 'encoder'") == [("applied",)]
    new = site.by_path()["front-030.jpg"]
    assert new["cluster"] == site.by_path()["front-000.jpg"]["cluster"]
    assert encoder_rows(site)[INT8]["use"] == "serving"
    site.verify()


def test_a_kill_costs_a_batch_and_it_goes_on(clustered: Site) -> None:
    site = clustered
    more = scenes(HALF, HALF + 60)
    fill(site.folder, more)
    site.once()
    total = 2 * HALF + len(more)
    site.write_settings(settings(INT8))
    with site.daemon() as daemon:
        daemon.wait_until(lambda: vectors(site).get(INT8), "the first batch is committed")
        daemon.kill()
    kept = vectors(site)[INT8]
    told = site.status()["encoder"]
    assert kept >= 32
    if kept < total:
        assert (told["id"], told["state"]) == (FLOAT32, "switching")
    with site.daemon() as daemon:
        changed_to(site, INT8, daemon)
    assert vectors(site) == {FLOAT32: total, INT8: total}
    assert site.table("SELECT count(*) FROM runs WHERE kind = 'encoder'") == [(1,)]
    assert not list((site.state / "jobs").glob("*"))
    site.verify()


def test_undo_goes_back_and_the_settings_do_not_change_it_again(clustered: Site) -> None:
    """Also: what arrives during a change and after it, and changing after all."""
    site = clustered
    before = places(site)
    site.write_settings(settings(INT8))
    with site.daemon() as daemon:
        fill(site.folder, scenes(HALF, HALF + 3))  # encoded by the old network, then by both
        changed_to(site, INT8, daemon)
        daemon.wait_until(lambda: vectors(site)[INT8] == 2 * HALF + 6, "the late ones follow")
        fill(site.folder, scenes(HALF + 3, HALF + 5))
        daemon.wait_until(decided(site, 2 * HALF + 10), "new pictures are recorded")
        old = vectors(site)[FLOAT32]
        assert old < 2 * HALF + 10
        done = site.cli("undo", run_of(site), "--yes", "--json")
        assert done.code == 0, done.out
        assert done.json()["restored"] == 2 * HALF + 10 - old
        assert serving(site) == FLOAT32
        fill(site.folder, scenes(HALF + 5, HALF + 6))
        daemon.wait_until(decided(site, 2 * HALF + 12), "new pictures are recorded")
        assert vectors(site) == {FLOAT32: 2 * HALF + 12, INT8: 2 * HALF + 10}
    assert {path: place for path, place in places(site).items() if path in before} == before
    assert site.cli("undo", run_of(site), "--yes", "--json").json()["restored"] == 0
    with site.daemon() as daemon:
        assert "was undone: efficientnet_lite0 goes on" in daemon.said
        assert serves(site, FLOAT32)()
        assert site.cli("encoders", "switch", "--yes").code == 0
        changed_to(site, INT8, daemon)
    assert site.table("SELECT state FROM runs WHERE kind = 'encoder' ORDER BY id") == [
        ("undone",),
        ("applied",),
    ]
    site.verify()


def test_once_changes_in_the_foreground_and_says_what_cannot_be_had(clustered: Site) -> None:
    site = clustered
    by_path = site.by_path()
    gone, changed = by_path["front-004.jpg"]["id"], by_path["back-005.jpg"]["id"]
    (site.folder / "front-004.jpg").unlink()
    fill(site.folder, {"back-005.jpg": picture(77), "back-006.jpg": picture(78)})
    lost = by_path["back-006.jpg"]["id"]
    freeze(site, "back-006.jpg")
    site.write_settings(settings(INT8))
    found = site.once()
    assert (found["encoder"]["id"], found["encoder"]["state"]) == (INT8, "ready")
    states = {row["id"]: row["state"] for row in site.rows()}
    assert (states[gone], states[changed]) == ("missing", "missing")
    row = encoder_rows(site)[INT8]
    assert row["frames"] == 2 * HALF - 2  # but the three, and the new content is one more
    assert [entry["frame"] for entry in row["without_vector"]] == [lost]
    told = "\n".join(site.cli("why", lost, "--json").json()["why"])
    assert "has no vector of the encoder in use" in told
    assert "other content than was recorded" in told
    assert lost in site.cli("encoders").err
    runs = site.runs("recluster")
    assert site.once()["encoder"]["id"] == INT8
    assert site.runs("recluster") == runs


def freeze(site: Site, name: str) -> None:
    """Let a row believe in the file as it is now, as after a change that no scan can see."""
    status = (site.folder / name).stat()
    database = Database(site.state)
    with database.write() as connection:
        connection.execute(
            text(
                "UPDATE frames SET inode = :i, size = :s, mtime_ns = :m, ctime_ns = :c"
                " WHERE path = :p"
            ),
            {
                "i": status.st_ino,
                "s": status.st_size,
                "m": status.st_mtime_ns,
                "c": status.st_ctime_ns,
                "p": name.encode(),
            },
        )
    database.close()


def test_an_old_space_can_be_forgotten_and_the_one_in_use_cannot(clustered: Site) -> None:
    site = clustered
    (used,) = (row["space"] for row in encoder_rows(site).values() if row["use"] == "serving")
    refused = site.cli("encoders", "forget", used, "--yes", "--json")
    assert refused.code == 1
    assert refused.json()["error"]["code"] == "conflict"
    site.write_settings(settings(INT8))
    site.once()
    dry = site.cli("encoders", "forget", used, "--json")
    assert dry.json() | {"size": ""} == {
        "dry_run": True,
        "space": used,
        "frames": 2 * HALF,
        "size": "",
    }
    assert vectors(site)[FLOAT32] == 2 * HALF
    done = site.cli("encoders", "forget", used, "--yes", "--json")
    assert done.json() == {"space": used, "frames": 2 * HALF}
    assert vectors(site) == {FLOAT32: 0, INT8: 2 * HALF}
    left = "SELECT DISTINCT encoder FROM signatures JOIN spaces ON spaces.id = space_id"
    assert site.table(left) == [(INT8,)]
    site.verify()
    back = site.cli("undo", run_of(site), "--yes", "--json")  # all has to be encoded again
    assert (back.code, back.json()["restored"]) == (0, 2 * HALF)
    assert vectors(site) == {FLOAT32: 2 * HALF, INT8: 2 * HALF}
    assert serving(site) == FLOAT32
    site.verify()


def test_a_camera_whose_folder_is_away_holds_the_change_up(site: Site) -> None:
    site.write_settings(settings(FLOAT32))
    gate = site.base / "gate"
    gate.mkdir()
    fill(gate, {f"gate-{n}.jpg": picture(n) for n in range(4)})
    fill(site.folder, {f"yard-{n}.jpg": picture(10 + n) for n in range(4)})
    assert site.cli("run", "--once", site.folder, gate).code == 0
    site.write_settings(settings(INT8))
    with site.daemon(folders=(site.folder, gate)) as daemon:
        changed_to(site, INT8, daemon)
    assert vectors(site) == {FLOAT32: 8, INT8: 8}
    site.write_settings(settings(FLOAT32))
    assert site.cli("encoders", "forget", "efficientnet_lite0@", "--yes").code == 0
    with site.daemon(folders=(site.folder, gate)) as daemon:
        gate.rename(site.base / "away")
        daemon.wait_until(
            lambda: "waiting" in str(site.status()["encoder"]), "the change waits for the camera"
        )
        assert serving(site) == INT8
        assert vectors(site) == {FLOAT32: 4, INT8: 8}
        assert "camera gate" in site.status()["encoder"]["switch"]["stage"]
    (site.base / "away").rename(gate)
    with site.daemon(folders=(site.folder, gate)) as daemon:
        changed_to(site, FLOAT32, daemon)
    assert vectors(site) == {FLOAT32: 8, INT8: 8}


def test_another_wish_ends_a_change_and_nonsense_is_refused(clustered: Site) -> None:
    site = clustered
    site.write_settings(settings("no_such_network"))
    refused = site.cli("run", "--once", "--json", site.folder)
    assert refused.code == 2
    assert "no_such_network" in refused.json()["error"]["summary"]
    site.write_settings(settings(INT8))
    with site.daemon() as daemon:
        daemon.wait_until(lambda: site.runs("encoder"), "the change has begun")
        daemon.kill()
    if serving(site) == FLOAT32:
        site.write_settings(settings(FLOAT32))
        site.once()
        assert site.status()["encoder"]["state"] == "ready"
        assert site.table("SELECT state FROM runs WHERE kind = 'encoder'") == [("undone",)]
    assert site.cli("run", "--once", site.folder).code == 0
