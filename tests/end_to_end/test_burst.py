"""A burst of files while the daemon runs: none is lost; `tests.faults.burst` has the full size."""

import time

import pytest

from tests.end_to_end.process import Site, decided, picture, sha256

COUNT = 2_000


@pytest.mark.slow
def test_a_burst_loses_no_file(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    shots = {f"{number // 500}/burst-{number:04d}.jpg": picture(number) for number in range(COUNT)}
    for name in shots:
        (site.folder / name).parent.mkdir(exist_ok=True)
    site.write_settings(
        {"ingest": {"settle_seconds": 0.2}, "clustering": {"first_at_frames": 10 * COUNT}}
    )
    with site.daemon() as daemon:
        start = time.monotonic()
        for name, data in shots.items():
            (site.folder / name).write_bytes(data)
        delivered = time.monotonic() - start
        daemon.wait_until(decided(site, COUNT), "all are recorded", 240)
        seconds = time.monotonic() - start
    recorded = {row["path"]: row["sha256"] for row in site.rows()}
    assert recorded == {name: sha256(data) for name, data in shots.items()}
    assert {row["state"] for row in site.rows()} == {"learning"}
    with capsys.disabled():
        print(
            f"\n{COUNT} files of 64x48 delivered in {delivered:.1f} s, all recorded"
            f" {seconds:.1f} s after the first: {COUNT / seconds:.0f} images/s"
        )
