"""A disk that does not confirm what was written: the daemon watches on and moves nothing more."""

import errno
from functools import partial
from pathlib import Path

import pytest

from storage.overview import camera_summaries
from storage.reading import Reader
from tests.end_to_end.process import Site, decided, facts, fill, picture
from tests.faults.injection import Faults, error, missing

SETTINGS = {
    "ingest": {"settle_seconds": 0.2},
    "dedup": {"delay_seconds": 0.2, "every_seconds": 1.0},
}


@pytest.mark.skipif(missing() is not None, reason=str(missing()))
def test_after_one_failed_fsync_nothing_is_moved_until_a_new_start(
    site: Site, tmp_path: Path
) -> None:
    site.write_settings(SETTINGS)
    with Faults(tmp_path / "faults.page") as faults:
        hit = faults.arm(
            below=site.folder, action=error(errno.EIO), calls=("fsync",), first=1, last=1
        )
        with site.daemon("--file", environment=faults.environment()) as daemon:
            fill(site.folder, {f"{name}.jpg": picture(1) for name in "abc"})
            daemon.wait_until(partial(told, site), "status tells it")
            assert "did not confirm" in str(told(site))
            before = facts(site.folder)
            plans = len(site.runs("dedup"))
            fill(site.folder, {f"{name}.jpg": picture(1) for name in "de"})
            daemon.wait_until(decided(site, 5), "it still takes pictures in")
            daemon.wait_until(lambda: len(site.runs("dedup")) > plans, "and goes on planning")
        now = facts(site.folder)
        assert {name: now[name] for name in before} == before
        assert "d.jpg" in now
        assert hit.hits == 1
    with site.daemon("--file") as daemon:
        daemon.wait_until(lambda: len(filed(site)) == 4, "what was left open is done")
        assert told(site) is None
    site.verify()


def told(site: Site) -> str | None:
    """What `status` says about filing."""
    with Reader(site.state) as reader:
        words: str | None = camera_summaries(reader, running=True)[0]["filing"]
        return words


def filed(site: Site) -> list[str]:
    return [path for path in site.by_path() if path.startswith("stillwatch/duplicates/")]
