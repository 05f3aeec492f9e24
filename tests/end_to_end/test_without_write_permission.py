"""A folder that may only be read, and a reader who may not write the state folder."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from tests.end_to_end.process import WITHOUT_OVERRIDE, Site, decided, facts, fill, yard

OTHER_USER, GROUP = 65534, 54321
COUNT = 24


def shots() -> dict[str, bytes]:
    return {f"yard-{index:02d}.jpg": yard(index) for index in range(COUNT)}


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    folder.chmod(0o555)
    yield
    folder.chmod(0o755)


def test_everything_but_filing_works(site: Site) -> None:
    bound = site.bound_by_modes()
    fill(site.folder, shots())
    before = facts(site.folder)
    with read_only(site.folder):
        found = bound.once()
        assert found["frames"]["total"] == COUNT
        assert found["frames"]["near_duplicate"] >= 10
        filed = bound.cli("run", "--once", "--file", "--json", site.folder)
        assert filed.code == 0, filed.err
        assert "cannot be written" in filed.err
        assert facts(site.folder) == before
        asked = bound.cli("dedup", "apply", "--yes", "--json")
        assert asked.code in (1, 3), asked.out
        assert "cannot be written" in asked.out
        assert facts(site.folder) == before
        assert not (site.folder / "stillwatch").exists()
        bound.verify()
        with bound.daemon("--file") as daemon:
            daemon.wait_until(lambda: site.status()["state"] == "running", "it runs")
            assert "cannot be written" in daemon.said
            assert "cannot be written" in bound.cli("status").err
    # The right came back: the next run files.
    with bound.daemon("--file") as daemon:
        daemon.wait_until(decided(site, COUNT), "all is known")
        assert bound.cli("dedup", "apply", "--yes", "--json").json()["skipped"] == 0
    assert len(list((site.folder / "stillwatch").rglob("*.jpg"))) >= 10
    bound.verify()


@pytest.mark.root
def test_a_reader_of_the_group_sees_the_status(site: Site) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root may give files to another user")
    fill(site.folder, shots())
    # The reader owns nothing here and is stopped by mode bits; the group lets it read.
    reader = replace(
        site, prefix=("setpriv", f"--regid={GROUP}", "--clear-groups", *WITHOUT_OVERRIDE[1:])
    )

    def give_away() -> None:
        for path in (site.state, *site.state.rglob("*")):
            shutil.chown(path, OTHER_USER, GROUP)
            path.chmod(0o750 if path.is_dir() else 0o640)

    with site.daemon() as daemon:
        daemon.wait_until(decided(site, COUNT), "all is recorded")
        give_away()
        up = reader.cli("status", "--json")
        assert up.code == 0, up.out
        assert up.json()["state"] == "running"
        assert len(reader.cli("frames", "--json").json_lines()) == COUNT
        refused = reader.cli("recluster", "--json")
        assert refused.code != 0
        assert "writable" in refused.json()["error"]["hint"]
    give_away()
    down = reader.cli("status", "--json")
    assert down.code == 0, down.out
    assert down.json()["state"] == "stopped"
    assert down.json()["frames"] == up.json()["frames"]
    # and who is not of the group gets one clear line
    stranger = replace(site, prefix=(*WITHOUT_OVERRIDE, "setpriv", "--clear-groups"))
    turned_away = stranger.cli("status", "--json")
    assert turned_away.code in (1, 2, 10)
    assert turned_away.json()["error"]["summary"]
