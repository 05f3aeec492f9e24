"""What somebody else on the machine, or whoever names the files, can do: nothing."""

import os
import re
import signal
import socket
import stat
import subprocess
from pathlib import Path

import psutil

from storage.modes import make_private_folder, tighten
from tests.end_to_end.process import ROOT, Daemon, Site, decided, fill, picture, wait_until

HOSTILE = (
    b"line\nERROR forged: all is lost.jpg",
    b"ansi\x1b[2J\x1b[31m.jpg",
    b"bytes\xff\xfe.jpg",
    "rtl\u202egpj.jpg".encode(),
    b"<0>emergency.jpg",
    b"-rf.jpg",
)
LINE = re.compile(r"<[2-7]>(DEBUG|INFO|WARNING|ERROR) [a-z_.]+: [^\x00-\x1f\x7f-\x9f]+")


def family(daemon: Daemon) -> list[psutil.Process]:
    """The daemon and every process below it."""
    parent = psutil.Process(daemon.process.pid)
    return [parent, *parent.children(recursive=True)]


def inodes(path: str) -> set[str]:
    """The sockets that a table below /proc/net lists."""
    table = Path("/proc/net") / path
    if not table.exists():
        return set()
    return {line.split()[9] for line in table.read_text().splitlines()[1:]}


def network_sockets(daemon: Daemon) -> list[str]:
    """What the family has open of the internet protocols."""
    tables = ("tcp", "tcp6", "udp", "udp6", "udplite", "udplite6", "raw", "raw6")
    known = {inode for table in tables for inode in inodes(table)}
    return [f"{p.pid} {link}" for p in family(daemon) for link in links(p) if link[8:-1] in known]


def links(process: psutil.Process) -> list[str]:
    """The sockets that a process has open, as /proc names them."""
    found = []
    for number in Path(f"/proc/{process.pid}/fd").iterdir():
        try:
            link = os.readlink(number)
        except OSError:
            continue
        if link.startswith("socket:["):
            found.append(link)
    return found


def modes(folder: Path) -> dict[str, str]:
    """The permission bits of everything below a folder."""
    return {
        str(path.relative_to(folder)): oct(stat.S_IMODE(path.lstat().st_mode))
        for path in (folder, *folder.rglob("*"))
    }


def test_the_state_folder_is_closed_whatever_the_umask(site: Site) -> None:
    fill(site.folder, {f"shot-{number:02d}.jpg": picture(number) for number in range(6)})
    command = ["sh", "-c", 'umask 000; exec "$@"', "sh"]
    done = subprocess.run(
        [*command, *site.command("run", "--once", site.folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found = modes(site.state)
    assert found.pop(".") == "0o700"
    folders = {name for name in found if (site.state / name).is_dir()}
    assert {found[name] for name in folders} <= {"0o700"}
    assert {mode for name, mode in found.items() if name not in folders} == {"0o600"}
    assert {"stillwatch.db", "lock"} <= found.keys()

    # A folder of an earlier version, which heeded the umask.
    (site.state / "stillwatch.db").chmod(0o664)
    (site.state / "lock").chmod(0o664)
    site.once()
    assert modes(site.state)["stillwatch.db"] == modes(site.state)["lock"] == "0o600"


def test_a_shared_state_folder_stays_shared_and_the_settings_as_they_are(tmp_path: Path) -> None:
    """2770 is how another account asks the daemon (docs/service.md)."""
    tmp_path.chmod(0o2770)
    for name, mode in {"stillwatch.db": 0o664, "lock": 0o600, "stillwatch.toml": 0o644}.items():
        (tmp_path / name).touch()
        (tmp_path / name).chmod(mode)
    (tmp_path / "link").symlink_to("/etc/passwd")
    tighten(tmp_path)
    make_private_folder(tmp_path / "jobs")
    found = modes(tmp_path)
    assert (found["stillwatch.db"], found["lock"]) == ("0o660", "0o600")
    assert found["stillwatch.toml"] == "0o644"
    assert found["jobs"].startswith("0o27")
    assert Path("/etc/passwd").stat().st_mode & 0o044 == 0o044


def test_a_daemon_at_work_has_no_network_and_no_line_can_be_forged(site: Site) -> None:
    log = site.base / "daemon.log"
    log.touch()
    status = log.stat()
    journal = {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}
    fill(site.folder, {f"shot-{number:02d}.jpg": picture(number) for number in range(30)})
    for name in HOSTILE:
        Path(os.fsdecode(os.path.join(os.fsencode(site.folder), name))).write_bytes(b"no" + name)
    with site.daemon(environment=journal) as daemon:
        daemon.wait_until(decided(site, 30 + len(HOSTILE)), "everything is decided")
        site.cli("recluster", "--no-wait")
        wait_until(lambda: len(family(daemon)) > 3, "a job's process is there, too")
        assert network_sockets(daemon) == []
        assert any(links(process) for process in family(daemon)), "the decoders' own are seen"
        daemon.wait_until(lambda: site.runs("recluster"), "the recluster is done")
        assert network_sockets(daemon) == []
        daemon.process.send_signal(signal.SIGHUP)
        daemon.wait_until(lambda: "settings were reloaded" in daemon.said, "it reloads")
    lines = log.read_bytes().decode("utf-8").splitlines()
    assert [line for line in lines if not LINE.fullmatch(line)] == []
    refused = [line for line in lines if "no usable picture" in line]
    assert len(refused) == len(HOSTILE)
    assert all(line.startswith("<4>WARNING") for line in refused)
    for arguments in (("frames",), ("status",), ("show", "f1"), ("verify",)):
        answer = site.cli(*arguments)
        assert "\x1b" not in answer.out + answer.err
        assert "\nERROR forged" not in answer.out + answer.err


def test_the_look_for_sockets_sees_one() -> None:
    """Else the test above would pass whatever the daemon did."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        number = os.fstat(server.fileno()).st_ino
        assert str(number) in inodes("tcp")
