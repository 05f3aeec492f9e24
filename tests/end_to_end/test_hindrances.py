"""Files that cannot be taken in now: they wait, are told to the owner, and come in once they can.

The clock of the daemon is turned, so that an hour of retries takes a moment.
"""

import errno
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.process import WITHOUT_OVERRIDE, Daemon, Site, fill, picture, reached, sha256
from tests.faults import injection
from tests.faults.injection import Faults

HOUR = 3600.0
SETTINGS: dict[str, dict[str, object]] = {
    "ingest": {"settle_seconds": 0.2, "rescan_seconds": 0.5},
    "clustering": {"first_at_frames": 100_000, "first_after_seconds": 1e6},
}


def make_too_deep(folder: Path) -> None:
    """A picture in a folder beyond PATH_MAX: no path of any length reaches it."""
    fd = os.open(folder, os.O_DIRECTORY)
    for _ in range(25):
        os.mkdir("x" * 200, dir_fd=fd)
        deeper = os.open("x" * 200, os.O_DIRECTORY, dir_fd=fd)
        os.close(fd)
        fd = deeper
    os.close(os.open("shot.jpg", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
    os.close(fd)


@pytest.fixture
def faults(tmp_path: Path) -> Iterator[Faults]:
    if (reason := injection.missing()) is not None:
        pytest.skip(reason)
    with Faults(tmp_path / "faults.page") as made:
        yield made


def hindrances(site: Site) -> dict[str, int]:
    camera = site.status()["cameras"][0]
    found: dict[str, int] = camera["waiting"] | {
        "unfinished": camera["left_out"]["unfinished"],
        "folders": camera["left_out"]["unreadable"],
        "special": camera["left_out"]["special"],
    }
    return found


def by_name(site: Site) -> dict[str, dict[str, Any]]:
    return {row["path"]: row for row in site.rows()}


def test_what_cannot_be_read_waits_is_told_and_comes_in_later(
    tmp_path: Path, encoder_cache: Path, faults: Faults
) -> None:
    plain = Site(tmp_path, SETTINGS)
    site = replace(plain, prefix=WITHOUT_OVERRIDE)
    folder = site.folder
    names = ("sign.jpg", "locked.jpg", "closed/a.jpg", "busy.jpg", "gone.jpg")
    shots = {name: picture(number) for number, name in enumerate(names)}
    fill(folder, shots | {"empty.jpg": b"", "twin.jpg": b"", ".in.shot.jpg.": b"half"})
    (folder / "locked.jpg").chmod(0)
    (folder / "closed").chmod(0)
    (folder / "trap.jpg").symlink_to("/dev/zero")
    make_too_deep(folder)
    for slot, (name, number) in enumerate(
        {"busy.jpg": errno.EBUSY, "gone.jpg": errno.ESTALE}.items()
    ):
        action = injection.error(number)
        faults.arm(below=folder / name, action=action, calls=("open",), slot=slot)
    try:
        with site.daemon(environment=faults.environment()) as daemon:
            _told(plain, daemon, faults)
            _come_in(plain, daemon, faults, shots)
    finally:
        (folder / "closed").chmod(0o755)
    assert (folder / ".in.shot.jpg.").read_bytes() == b"half"


def _told(site: Site, daemon: Daemon, faults: Faults) -> None:
    wanted = {"empty": 2, "unreadable": 3, "unfinished": 0, "folders": 2, "special": 1}
    daemon.wait_until(lambda: hindrances(site) == wanted, "they wait")
    daemon.wait_until(lambda: by_name(site)["sign.jpg"]["state"] == "learning", "one is read")
    rows = by_name(site)
    assert rows["locked.jpg"]["reason"] == "no permission to read it"
    assert "busy" in rows["busy.jpg"]["reason"] and "tale" in rows["gone.jpg"]["reason"]
    assert {rows[name]["state"] for name in ("empty.jpg", "twin.jpg", "busy.jpg")} == {"pending"}
    assert rows["empty.jpg"]["duplicate_of"] is rows["twin.jpg"]["duplicate_of"] is None

    def strikes() -> int:
        sql = "SELECT min(strikes) FROM frames WHERE path IN (X'{}', X'{}')"
        ((least,),) = site.table(sql.format(b"busy.jpg".hex(), b"gone.jpg".hex()))
        return int(least)

    for number in range(2, 10):  # past the end of the list of waits
        faults.shift_clock(number * 1.1 * HOUR)
        daemon.wait_until(reached(strikes, number), "they are tried again")
    camera = site.status()["cameras"][0]
    assert (camera["state"], camera["reason"]) == ("learning", None)  # no scan would help
    wanted["unfinished"] = 1
    daemon.wait_until(lambda: hindrances(site) == wanted, "the upload is abandoned by now")
    said = site.cli("status").err
    doctor = {check["id"]: check for check in site.cli("doctor", "--json").json_lines()}
    for kind, word in (
        ("empty", "2 files without content"),
        ("unreadable", "3 files cannot be read"),
        ("unfinished", "1 upload abandoned"),
        ("folders", "2 folders cannot be listed"),
    ):
        assert word in said, said
        check = doctor[f"arrivals:yard:{kind}"]
        assert check["status"] == "warn" and word in check["summary"] and check["fix"]
    assert ".in.shot.jpg." in doctor["arrivals:yard:unfinished"]["summary"]


def _come_in(site: Site, daemon: Daemon, faults: Faults, shots: dict[str, bytes]) -> None:
    (site.folder / "locked.jpg").chmod(0o644)
    (site.folder / "closed").chmod(0o755)
    fill(site.folder, {"empty.jpg": (filled := picture(100))})
    wanted = shots | {"empty.jpg": filled}

    def taken(names: set[str]) -> bool:
        rows = by_name(site)
        return all(rows.get(n, {}).get("sha256") == sha256(wanted[n]) for n in names)

    stale = {"busy.jpg", "gone.jpg"}
    daemon.wait_until(lambda: taken(set(wanted) - stale), "what was mended is taken in")
    faults.shift_clock(-10 * 365 * 24 * HOUR)  # every wait lies in the far future now
    for rule in range(2):
        faults.arm(below=b"/nowhere", action=injection.NOTHING, slot=rule)
    daemon.wait_until(lambda: taken(set(wanted)), "the others are tried again and taken in")
    assert hindrances(site) | {"unfinished": 0} == {
        "empty": 1,
        "unreadable": 0,
        "unfinished": 0,
        "folders": 1,
        "special": 1,
    }
