"""Ten broken set-ups, each made for real: `doctor` names the cause and the cure, so does `run`.

What a stranger needs is in the words: the path, the command to type, and that nothing is lost.
"""

import os
import shutil
import signal
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from storage.database_file import sqlite_driver
from tests.end_to_end.judged_site import copy_of
from tests.end_to_end.process import Answer, Row, Site, files, fill, picture, yard
from tests.faults import injection, namespaces

YEAR = 366 * 86400.0
COUNT = 24


@pytest.fixture(scope="module")
def sound_site(tmp_path_factory: pytest.TempPathFactory, encoder_cache: Path) -> Site:
    """A few frames, recorded, clustered, backed up."""
    site = Site(tmp_path_factory.mktemp("sound"))
    site.write_settings({"clustering": {"min_cluster_size": 5}} | dict(site.settings))
    fill(site.folder, {f"yard-{number:02d}.jpg": yard(number) for number in range(COUNT - 4)})
    fill(site.folder, {f"other-{number}.jpg": picture(number) for number in range(4)})
    site.once()
    assert site.cli("backup").code == 0
    assert (site.state / "representatives.faiss").exists()
    return site


@pytest.fixture
def broken(sound_site: Site, tmp_path: Path) -> Site:
    """A copy of it, to be broken; its root is recorded as it was."""
    site = copy_of(sound_site.base, tmp_path)
    shutil.copy(sound_site.config, site.config)
    return site


def examined(site: Site) -> dict[str, Row]:
    """What `doctor` finds wrong, by its id; the exit code must agree."""
    done = site.cli("doctor", "--json")
    rows = {row["id"]: row for row in done.json_lines()}
    assert done.code == int(any(row["status"] == "fail" for row in rows.values())), done.out
    wrong = {name: row for name, row in rows.items() if row["status"] != "ok"}
    for row in wrong.values():
        assert row["fix"], row
        assert "Install stillwatch again" not in row["fix"], row
    return wrong


def refused(site: Site, *arguments: str | os.PathLike[str], code: int) -> str:
    """What `run` says when it cannot start, in words."""
    done: Answer = site.cli("run", *(arguments or (site.folder,)))
    assert done.code == code, done.err
    assert "error: " in done.err
    assert "hint: " in done.err
    return done.err


def in_namespace(site: Site, script: str, **environment: str) -> Site:
    """The same site for commands that run after a script, with mounts of their own."""
    if (reason := namespaces.missing("--mounts")) is not None:
        pytest.skip(f"mounts of one's own cannot be had here: {reason}")
    variables = [f"{name}={value}" for name, value in environment.items()]
    shell = ("env", *variables, "sh", "-ec", f'{script}; exec "$@"', "sh")
    return replace(site, prefix=(*namespaces.prefix("--mounts"), *shell))


def rows_and_files(site: Site) -> tuple[int, int]:
    return len(site.rows()), len(list(files(site.folder)))


def said(found: Mapping[str, Row], check: str, *words: str) -> None:
    assert check in found, list(found)
    text = f"{found[check]['summary']} {found[check]['fix']}"
    for word in words:
        assert word in text, (word, text)


def execute(site: Site, *statements: str) -> None:
    connection = sqlite_driver().connect(site.state / "stillwatch.db", isolation_level=None)
    for statement in statements:
        connection.execute(statement)
    connection.close()


def test_a_sound_set_up_is_found_sound_and_soon(broken: Site) -> None:
    assert not {name for name, row in examined(broken).items() if row["status"] == "fail"}
    assert broken.cli("doctor").seconds < 10  # two on a machine with nothing else to do


@pytest.mark.root
def test_no_permission(broken: Site) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root may drop the capabilities of root")
    bound = broken.bound_by_modes()
    broken.folder.chmod(0o000)
    try:
        found = examined(bound)
        said(found, "folder:yard", str(broken.folder), "may not be read", "root", "setfacl")
        assert str(broken.folder) in refused(bound, code=2)
    finally:
        broken.folder.chmod(0o755)
    broken.state.chmod(0o000)
    try:
        found = examined(bound)
        said(found, "database", str(broken.state), "may not be read", "sudo -u root")
        said(found, "lock", str(broken.state), "cannot be seen")
        assert str(broken.state) in refused(bound, code=2)
    finally:
        broken.state.chmod(0o755)


@pytest.mark.root
def test_a_full_disk(broken: Site) -> None:
    script = (
        'mount -t tmpfs -o size=8m none "$BASE/disk"; cp -a "$BASE/state/." "$BASE/disk";'
        ' mount --move "$BASE/disk" "$BASE/state"; cat /dev/zero > "$BASE/state/zeros" || true'
    )
    (broken.base / "disk").mkdir()
    full = in_namespace(broken, f"({script}) 2>/dev/null", BASE=str(broken.base))
    found = examined(full)
    assert "database" not in found, "a full disk is no damaged database"
    said(found, "space:state", str(broken.state), "is full", "Make room", "df -h")
    fill(broken.folder, {"late.jpg": picture(1)})
    told = refused(full, "--once", broken.folder, code=12)
    assert "full" in told
    assert str(broken.state) in told


def test_the_watch_limit(broken: Site) -> None:
    if (reason := namespaces.missing("--watches", 5)) is not None:
        pytest.skip(f"limits of one's own cannot be had here: {reason}")
    for number in range(6):
        fill(broken.folder, {f"sub-{number}/shot.jpg": picture(number)})
    few = replace(broken, prefix=namespaces.prefix("--watches", 5))
    said(examined(few), "watches", "7 folders", "watch 5", "sysctl fs.inotify.max_user_watches")
    with few.daemon() as daemon:
        daemon.wait_until(
            lambda: few.status()["cameras"][0]["state"] == "degraded", "it says that it is degraded"
        )
        said(examined(few), "folder:yard", str(broken.folder), "degraded", "limit")


def test_a_wrong_clock(broken: Site, tmp_path: Path) -> None:
    if (reason := injection.missing()) is not None:
        pytest.skip(reason)
    with injection.Faults(tmp_path / "faults.page") as faults:
        variables = [f"{name}={value}" for name, value in faults.environment().items()]
        wrong = replace(broken, prefix=("env", *variables))
        for seconds, words in (
            (-5 * YEAR, ("days before the newest picture arrived", "wrong now, or was wrong then")),
            (-60 * YEAR, ("which cannot be",)),
            (10 * YEAR, ("after the newest picture arrived", "is it ahead")),
        ):
            faults.shift_clock(seconds)
            said(examined(wrong), "clock", *words, "timedatectl", "nothing is deleted by age")


@pytest.mark.root
def test_an_unmounted_root(broken: Site) -> None:
    """The pictures lie on a disk that is mounted over the folder, and then is not."""
    (broken.base / "disk").mkdir()
    shutil.copytree(broken.folder, broken.base / "disk", dirs_exist_ok=True)
    shutil.rmtree(broken.folder)
    broken.folder.mkdir()
    mounted = in_namespace(
        broken,
        'mount -t tmpfs none "$YARD"; cp -a "$DISK/." "$YARD"',
        YARD=str(broken.folder),
        DISK=str(broken.base / "disk"),
    )
    recorded = mounted.cli("run", "--once", "--json", broken.folder)
    assert recorded.json()["frames"]["on_disk"] == COUNT
    before = broken.status()["frames"]

    words = (str(broken.folder), "is not mounted", "mount ", "nothing is concluded")
    said(examined(broken), "folder:yard", *words)
    with broken.daemon() as daemon:
        camera = broken.status()["cameras"][0]
        daemon.wait_until(
            lambda: broken.status()["cameras"][0]["state"] == "offline", "it is offline"
        )
        said(examined(broken), "folder:yard", *words)
    assert camera["name"] == "yard"
    assert broken.status()["frames"] == before, "missing is not deleted"
    assert broken.cli("verify", "--json").json()["offline"]
    broken.folder.rmdir()
    said(examined(broken), "folder:yard", str(broken.folder), "is not there", "Mount its disk")


def test_a_damaged_database(broken: Site) -> None:
    """The steps that doctor names are typed as they stand there, with a backup and without."""
    before = {row["path"]: row["sha256"] for row in broken.rows()}
    damage = (broken.state / "stillwatch.db").read_bytes()[:8192] + b"\xa5" * 65536
    for without_backup in (False, True):
        (broken.state / "stillwatch.db").write_bytes(damage)
        if without_backup:
            shutil.rmtree(broken.state / "backups")
        found = examined(broken)
        said(found, "database", str(broken.state / "stillwatch.db"), "Nothing is moved or deleted")
        text = broken.cli("doctor").out
        assert "in this order:\n  1. " in text
        assert "restore-database" in refused(broken, code=1)
        follow(broken, found["database"]["steps"], to_the_end=without_backup)
        assert "database" not in examined(broken)
        assert list(broken.state.glob("stillwatch.db?*")), "the damaged file is kept"
    assert {row["path"]: row["sha256"] for row in broken.rows()} == before


def follow(site: Site, steps: Sequence[str], *, to_the_end: bool) -> None:
    """Type the stillwatch commands of the steps; to the end: also the daemon's start, once."""
    typed = [part.split("`")[0] for step in steps for part in step.split("`stillwatch ")[1:]]
    assert any(command.endswith(" verify") for command in typed)
    for command in typed:
        words = [str(site.folder) if word == "FOLDER" else word for word in command.split()]
        if words[2] == "run":
            if not to_the_end:
                continue
            words.insert(3, "--once")
        done = site.cli(*words)
        assert done.code == 0 or words[2] == "verify", (command, done.out, done.err)


def test_a_lost_database_beside_its_backups(broken: Site) -> None:
    (broken.state / "stillwatch.db").unlink()
    found = examined(broken)
    said(found, "database", str(broken.state / "stillwatch.db"), "is gone", "backup")
    assert any("restore-database --yes" in step for step in found["database"]["steps"])


def test_a_damaged_index(broken: Site) -> None:
    index = broken.state / "representatives.faiss"
    data = bytearray(index.read_bytes())
    data[len(data) // 2] ^= 1
    index.write_bytes(data)
    snapshot = max((broken.state / "neighbours").glob("neighbours-*"))
    os.truncate(snapshot, snapshot.stat().st_size // 2)
    found = examined(broken)
    said(found, "index", str(index), "not used", "Start the daemon again")
    said(found, "neighbours", str(snapshot), "stillwatch recluster")
    with broken.daemon():
        assert "index" not in examined(broken), "the start has built it anew"
    assert broken.cli("recluster").code == 0
    assert not {"index", "neighbours"} & set(examined(broken))


def test_a_missing_encoder(broken: Site) -> None:
    cache = broken.base / "no encoder here"
    broken.write_settings({"encoder": {"cache": str(cache)}})
    found = examined(broken)
    said(found, "encoder", str(cache), "not prepared", "encoders prepare efficientnet_lite0")
    broken.write_settings({"encoder": {"id": "no_such_encoder"}})
    said(examined(broken), "encoder", "no_such_encoder", "stillwatch encoders")
    assert "no_such_encoder" in refused(broken, code=2)


def test_two_daemons(broken: Site) -> None:
    other = replace(broken, base=broken.base / "other")
    with broken.daemon("--file") as daemon:
        told = refused(broken, code=11)
        assert f"process {daemon.process.pid}" in told
        assert "lock" not in examined(broken)
        other.write_settings({"filing": {"enabled": True}} | dict(other.settings))
        told = refused(other, broken.folder, code=11)
        assert str(broken.folder) in told
        # the one whose folder another daemon files in
        daemon.process.send_signal(signal.SIGSTOP)
        try:
            copied = copy_of(broken.base, broken.base / "third")
            execute(copied, f"UPDATE cameras SET root = CAST('{broken.folder}' AS BLOB)")
            said(examined(copied), "owner:yard", str(daemon.process.pid), str(broken.folder))
        finally:
            daemon.process.send_signal(signal.SIGCONT)


def test_a_newer_schema(broken: Site) -> None:
    execute(broken, "UPDATE alembic_version SET version_num = '9999'")
    found = examined(broken)
    said(found, "database", "9999", "another version", "Install", "whole")
    told = refused(broken, code=13)
    assert "9999" in told
