"""An upload that stalls for longer than everything else takes, while filing is on.

Its parts are looked at, refused and looked at again; none is filed, taken for a duplicate or for
a picture of its own, and the whole file is one frame in the end.
"""

import time
from functools import partial

from tests.end_to_end.process import Daemon, Row, Site, decided, files, sha256, yard
from tests.end_to_end.test_kill import Delivery

COUNT = 30
SIZE = "SELECT size, state FROM frames WHERE original_path = CAST('slow.jpg' AS BLOB)"
SETTINGS: dict[str, dict[str, object]] = {
    "ingest": {"settle_seconds": 0.2, "rescan_seconds": 0.5},
    "clustering": {"first_at_frames": COUNT // 2, "growth_share": 100.0},
    "dedup": {"delay_seconds": 0.2, "every_seconds": 1.0},
}


def is_true(site: Site, sql: str) -> bool:
    return site.table(sql) == [(1,)]


def is_refused(site: Site, size: int) -> bool:
    """Whether so much of the upload was read, and is no picture."""
    return site.table(SIZE) == [(size, "rejected")]


def test_a_part_is_never_filed(site: Site) -> None:
    site.write_settings(SETTINGS)
    shots = {f"yard-{number:02d}.jpg": yard(number) + b"\0" * number for number in range(COUNT)}
    late = yard(COUNT // 2)
    whole = {sha256(data) for data in (*shots.values(), late)}

    def slow() -> Row:
        (row,) = (row for row in site.rows() if row["original_path"] == "slow.jpg")
        return row

    def until_a_round_is_made(daemon: Daemon) -> None:
        """Of dedup, filing and prune, ended after now."""
        made = "SELECT json_extract(value, '$.at') > {} FROM meta WHERE key = 'dedup_round'"
        daemon.wait_until(partial(is_true, site, made.format(time.time())), "a round is made")

    with site.daemon("--file") as daemon, (site.folder / "slow.jpg").open("wb", 0) as file:
        delivery = Delivery(site.folder, shots, per_second=15)
        for share in (0.3, 0.6):
            file.write(late[file.tell() : int(share * len(late))])
            refused = partial(is_refused, site, file.tell())
            daemon.wait_until(refused, "the part is looked at and refused")
        delivery.join()
        filed = site.folder / "stillwatch"
        daemon.wait_until(lambda: any(filed.rglob("*.jpg")), "others are filed meanwhile")
        until_a_round_is_made(daemon)
        row = slow()
        assert (row["state"], row["path"]) == ("rejected", "slow.jpg")
        assert row["cluster"] is row["duplicate_of"] is None
        assert site.table(f"SELECT * FROM plan_entries WHERE frame_id = {row['id'][1:]}") == []
        file.write(late[file.tell() :])
        daemon.wait_until(lambda: slow()["sha256"] == sha256(late), "the whole file is read")
        daemon.wait_until(decided(site, COUNT + 1), "all are recorded")
    rows = site.rows()
    assert len(rows) == COUNT + 1, "own moves made rows"
    assert {row["sha256"] for row in rows} == whole
    assert {
        sha256(path.read_bytes()) for path in files(site.folder) if path.suffix == ".jpg"
    } == whole
    site.verify()
