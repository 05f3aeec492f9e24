"""Two daemons, two state folders over one camera, a command beside a daemon: one of them files."""

import shutil
from dataclasses import replace

from tests.end_to_end.process import Site, facts, fill, yard

SETTINGS = {
    "ingest": {"settle_seconds": 0.2},
    "dedup": {"delay_seconds": 0.2, "every_seconds": 3600.0},
}


def sibling(site: Site) -> Site:
    """Another state folder that knows as much of the same pictures."""
    base = site.base / "other"
    base.mkdir()
    (base / "yard").symlink_to(site.folder)
    shutil.copytree(site.state, base / "state")
    return replace(site, base=base)


def test_one_state_folder_files_in_a_camera_and_the_other_is_told(site: Site) -> None:
    site.write_settings(SETTINGS)
    fill(site.folder, {f"yard-{index:02d}.jpg": yard(index) for index in range(24)})
    assert site.once()["frames"]["near_duplicate"] >= 10
    other = sibling(site)
    before = facts(site.folder)
    with site.daemon("--file") as daemon:
        words = f"process {daemon.process.pid}"
        for second in (site, other):
            refused = second.cli("run", "--file", site.folder)
            assert refused.code == 11
            assert words in refused.err
        assert "One folder belongs to one state folder" in refused.err
        refused = other.cli("dedup", "apply", "--yes", "--json")
        assert refused.code == 3, refused.out
        entries = refused.json()["entries"]
        assert len(entries) >= 10
        assert all(words in entry["reason"] for entry in entries)
        assert facts(site.folder) == before
        asked = site.cli("prune", "--now", "--yes", "--json")
        assert asked.code == 0, asked.err
        assert asked.json()["trashed"] == len(entries), "its own command asks the daemon"
    files = facts(site.folder)
    alone = other.cli("dedup", "apply", "--yes", "--json")
    assert alone.code == 3
    assert all("gone" in entry["reason"] for entry in alone.json()["entries"])
    assert facts(site.folder) == files
    site.verify()
