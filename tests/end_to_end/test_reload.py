"""SIGHUP: the settings are read again, or the old ones stay with a reason."""

import os
import pty
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from tests.end_to_end.manager import Manager
from tests.end_to_end.process import ROOT, Daemon, Site, decided, fill, picture, wait_until

PRUNING: dict[str, object] = {"enabled": True, "trash_after_days": 3.0}


@pytest.fixture
def manager(site: Site) -> Iterator[Manager]:
    listening = Manager(site.base / "notify")
    yield listening
    listening.close()


def reload(daemon: Daemon, manager: Manager) -> None:
    """Send SIGHUP and wait until the daemon says that it is done."""
    before = manager.listen().count("READY=1")
    daemon.process.send_signal(signal.SIGHUP)
    daemon.wait_until(lambda: manager.listen().count("READY=1") > before, "it is ready again")
    assert manager.heard.count("RELOADING=1") == before


def told(site: Site) -> dict[str, Any]:
    """What `status` says of the settings."""
    found: dict[str, Any] = site.cli("status", "--json").json()["settings"]
    return found


def test_the_settings_are_read_again_or_the_old_ones_stay(site: Site, manager: Manager) -> None:
    dedup: dict[str, object] = {"delay_seconds": 0.0}
    site.write_settings({"ingest": {"settle_seconds": 0.2}, "dedup": dedup, "prune": PRUNING})
    fill(site.folder, {f"twin-{number}.jpg": picture(5) for number in range(3)})
    with site.daemon(environment=manager.environment()) as daemon:
        daemon.wait_until(decided(site, 3), "all are recorded")
        assert told(site)["problem"] is None

        # What can change at once does, the rest is named.
        ingest: dict[str, object] = {"settle_seconds": 0.3, "rescan_seconds": 100.0}
        changed: dict[str, dict[str, object]] = {
            "ingest": ingest,
            "dedup": dedup,
            "filing": {"mode": "copy"},
            "prune": PRUNING,
        }
        site.write_settings(changed)
        reload(daemon, manager)
        assert "changed: ingest.rescan_seconds, filing.mode." in daemon.said
        assert "These settings need a restart: ingest.settle_seconds." in daemon.said
        assert told(site)["restart"] == "ingest.settle_seconds"
        assert "filing.mode is copy" in site.cli("prune", "--yes").err

        # A nonsense retention: everything stays as it was, but nothing is pruned any more.
        for wrong in ("0", "-1", '""', '"soon"', "nan"):
            site.config.write_text(f"[prune]\nenabled = true\ntrash_after_days = {wrong}\n")
            reload(daemon, manager)
            assert "prune.trash_after_days is wrong" in told(site)["problem"]
        assert "nothing is pruned until the file is mended" in daemon.said
        site.config.write_text("[prune\n")
        reload(daemon, manager)
        assert "not valid TOML" in told(site)["problem"]
        site.write_settings({})
        status = site.cli("status")
        assert "settings\tnot reloaded" in status.out + status.err.replace(": ", "\t")
        found = {row["id"]: row for row in site.cli("doctor", "--json").json_lines()}
        assert "prunes nothing" in found["settings_in_force"]["summary"]
        assert "systemctl reload" in found["settings_in_force"]["fix"]
        refused = site.cli("prune", "--yes")
        assert (refused.code, "switched off" in refused.err) == (1, True)
        site.config.unlink()
        reload(daemon, manager)
        assert "There is no settings file" in told(site)["problem"]
        assert site.status()["frames"]["trashed"] == 0

        # Mended: what is due goes to the trash.
        due = {"enabled": True, "trash_after_days": 1e-6}
        site.write_settings({"ingest": {"settle_seconds": 0.2}, "dedup": dedup, "prune": due})
        reload(daemon, manager)
        assert told(site) == told(site) | {"problem": None, "restart": None}
        assert site.cli("dedup", "plan", "--new").code == 0
        done = site.cli("prune", "--yes", "--json")
        assert (done.code, done.json()["trashed"]) == (0, 2)
    site.config.write_text("[prune]\ntrash_after_days = 0\n")
    refused = site.cli("run", "--once", site.folder)
    assert (refused.code, "prune.trash_after_days is wrong" in refused.err) == (2, True)


def test_a_terminal_that_is_closed_ends_it(site: Site) -> None:
    """Without a service manager SIGHUP means that nobody is there any more."""
    master, slave = pty.openpty()
    try:
        process = subprocess.Popen(
            site.command("run", site.folder),
            cwd=ROOT,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            preexec_fn=lambda: os.close(os.open(os.ttyname(slave), os.O_RDWR)),
        )
    finally:
        os.close(slave)
    try:
        heard = b""
        while b"filing is off" not in heard:
            heard += os.read(master, 4096)
        process.send_signal(signal.SIGHUP)
        wait_until(
            lambda: b"reloaded" in (heard := os.read(master, 4096)) or heard, "it reloads", 20
        )
        assert process.poll() is None
        with suppress(OSError):
            os.close(master)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
