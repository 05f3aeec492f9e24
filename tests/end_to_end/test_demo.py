"""`stillwatch demo`: what a newcomer sees is what the database holds."""

import re
import subprocess

import pytest

from daemon.demo.render import REPEATED
from tests.end_to_end.process import ROOT, Site, facts

SECONDS = 100


@pytest.mark.slow
def test_the_demo_shows_everything_in_its_time(site: Site) -> None:
    done = subprocess.run(
        [*site.command("demo")[:3], "--state", site.state, "demo", "--seconds", str(SECONDS)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=SECONDS + 120,
    )
    told = done.stdout + done.stderr
    assert done.returncode == 0, told
    assert "Not seen this time" not in told, told
    assert "Traceback" not in told + (site.state / "daemon.log").read_text()
    found = re.search(r"delivered (\d+) files", told)
    assert found is not None, told
    delivered = int(found[1])

    rows = site.rows()
    frames = site.status()["frames"]
    assert frames["total"] == len(rows) == delivered >= 100
    assert frames["pending"] <= 1  # the camera's last file may not have settled yet
    assert (frames["learning"], frames["missing"]) == (0, 0)
    assert frames["rejected"] == 1  # the broken file
    assert frames["exact_duplicate"] >= 1
    assert frames["near_duplicate"] >= 20
    assert frames["novel"] >= 1
    assert site.status()["clusters"] >= 2
    filed = [row for row in rows if row["path"].startswith("stillwatch/duplicates/")]
    assert len(filed) >= 20
    assert {row["state"] for row in filed} <= {"exact_duplicate", "near_duplicate"}
    on_disk = facts(site.state / "pictures")
    assert {row["path"] for row in rows} == set(on_disk)
    hashed = {row["path"]: row["sha256"] for row in rows if row["state"] != "pending"}
    assert hashed == {path: on_disk[path][0] for path in hashed}
    assert delivered > REPEATED
    site.verify()
