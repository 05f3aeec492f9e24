"""The whole program under the restrictions of the packaged unit."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.end_to_end.process import ROOT, Site, fill, picture, yard
from tests.tools.unit_sandbox import allowed_calls, command, missing

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(missing() is not None, reason=str(missing())),
]

PROBE = """
import errno, os, socket, sys
for family in (socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK):
    try:
        socket.socket(family)
    except OSError as exc:
        assert exc.errno == errno.EAFNOSUPPORT, exc
    else:
        sys.exit(f"{family} can be opened")
for path in ("/etc/passwd-", "/var/x", "/usr/x"):
    try:
        os.open(path, os.O_WRONLY | os.O_CREAT)
    except OSError:
        continue
    sys.exit(f"{path} can be written")
assert os.getuid() == 65534 and not os.listdir("/home")
"""


@pytest.fixture
def site(tmp_path: Path, encoder_cache: Path) -> Site:
    return Site(tmp_path, {"ingest": {"settle_seconds": 0.1}, "dedup": {"delay_seconds": 0.0}})


def run(site: Site, *arguments: str) -> subprocess.CompletedProcess[str]:
    site.state.mkdir(exist_ok=True)
    return subprocess.run(
        command(site.base, arguments, (site.folder, site.state)),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=200,
        env={"PATH": "/usr/bin:/bin", "HOME": "/", "PYTHONPATH": str(ROOT), "LANG": "C.UTF-8"},
    )


def test_it_sorts_and_files_pictures_as_the_unit_lets_it(site: Site) -> None:
    """Network, decoding processes, recluster, snapshot, dedup and filing, all of them inside."""
    probed = run(site, sys.executable, "-c", PROBE)
    assert probed.returncode == 0, probed.stderr
    fill(site.folder, {f"yard-{number:02d}.jpg": yard(number) for number in range(20)})
    fill(site.folder, {f"scene-{number}.jpg": picture(number) for number in range(4)})
    fill(site.folder, {"twin.jpg": picture(1)})
    done = run(site, *site.command("run", "--once", "--file", "--json", site.folder))
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    frames = site.status()["frames"]
    assert (frames["total"], frames["pending"], frames["rejected"]) == (25, 0, 0)
    assert frames["exact_duplicate"] >= 1
    assert list((site.folder / "stillwatch").rglob("*.jpg"))
    site.verify()


def test_the_unit_lets_decoding_processes_confine_themselves() -> None:
    """Not every systemd counts these among its @system-service."""
    needed = {"landlock_create_ruleset", "landlock_restrict_self", "seccomp", "prctl"}
    assert needed <= allowed_calls()
    assert not allowed_calls() & {"ptrace", "mount", "bpf", "kexec_load", "init_module"}
