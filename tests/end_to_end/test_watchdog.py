"""systemd's watchdog: the feed stops when any stage has stalled, and never for honest work."""

import signal
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing

import psutil
import pytest

from tests.end_to_end.manager import Manager
from tests.end_to_end.process import Daemon, Site, decided, fill, picture, wait_until
from tests.faults.injection import Faults, delay, missing

WATCHDOG_SECONDS = 2.0
"""A stage may be silent for two seconds then, a heavy job for eight."""


@pytest.fixture
def manager(site: Site) -> Iterator[Manager]:
    listening = Manager(site.base / "notify")
    yield listening
    listening.close()


def fed(daemon: Daemon, manager: Manager, times: int = 3) -> None:
    """Wait until the feed goes on."""
    before = manager.beats()
    daemon.wait_until(lambda: manager.beats() >= before + times, "the watchdog is fed")


def starved(daemon: Daemon, manager: Manager) -> None:
    """Wait until there is silence for as long as systemd would wait."""
    heard, silent_since = manager.beats(), time.monotonic()

    def silent() -> bool:
        nonlocal heard, silent_since
        if manager.beats() > heard:
            heard, silent_since = manager.beats(), time.monotonic()
        return time.monotonic() - silent_since > WATCHDOG_SECONDS

    daemon.wait_until(silent, "the feed ends", 90)


@pytest.mark.skipif(missing() is not None, reason=str(missing()))
def test_a_stage_that_stalls_ends_the_feed_until_it_goes_on(site: Site, manager: Manager) -> None:
    site.write_settings({"ingest": {"settle_seconds": 0.2, "decode_seconds": 2.0}})
    with Faults(site.base / "faults.page") as faults:
        environment = manager.environment(WATCHDOG_SECONDS) | faults.environment()
        with site.daemon(environment=environment) as daemon:
            fed(daemon, manager)

            # Decoding processes that hang are replaced: no stall.
            for child in children(daemon, "decode_child"):
                child.send_signal(signal.SIGSTOP)
            fill(site.folder, {f"shot-{number:02d}.jpg": picture(number) for number in range(40)})
            daemon.wait_until(decided(site, 40), "hung decoders are replaced")
            fed(daemon, manager)
            assert "makes no progress" not in daemon.said

            # The process of a heavy job hangs: it may be quiet for long, but not for ever.
            site.cli("recluster", "--no-wait")
            wait_until(lambda: children(daemon, "recluster_child"), "the job has begun")
            job = children(daemon, "recluster_child")[0]
            job.send_signal(signal.SIGSTOP)
            stopped_at = time.monotonic()
            fed(daemon, manager)
            starved(daemon, manager)
            assert time.monotonic() - stopped_at > 4 * WATCHDOG_SECONDS
            assert "the stage job makes no progress" in daemon.said
            job.send_signal(signal.SIGCONT)
            fed(daemon, manager)
            daemon.wait_until(lambda: site.runs("recluster"), "the recluster is done")

            # Another program keeps the database locked: nothing can be recorded.
            database = site.state / "stillwatch.db"
            with closing(sqlite3.connect(database, isolation_level=None)) as other:
                other.execute("BEGIN IMMEDIATE")
                fill(site.folder, {"locked.jpg": picture(41)})
                starved(daemon, manager)
                other.execute("ROLLBACK")
            fed(daemon, manager)
            daemon.wait_until(decided(site, 41), "what waited is recorded")

            # open(2) hangs, as on a share whose server is gone.
            faults.arm(below=site.folder / "hangs.jpg", action=delay(60), calls=("open",))
            fill(site.folder, {"hangs.jpg": picture(42)})
            starved(daemon, manager)
            assert "the stage decode makes no progress" in daemon.said
            daemon.kill()


@pytest.mark.skipif(missing() is not None, reason=str(missing()))
def test_a_main_loop_that_hangs_ends_the_feed_without_a_word(site: Site, manager: Manager) -> None:
    """It is no stage: whoever feeds the watchdog cannot feed it while it hangs."""
    with Faults(site.base / "faults.page") as faults:
        environment = manager.environment(WATCHDOG_SECONDS) | faults.environment()
        with site.daemon(environment=environment) as daemon:
            fed(daemon, manager)
            # The main loop reads the settings again, and no stage has a part in that.
            rule = faults.arm(below=site.config, action=delay(300), calls=("open",), last=1)
            daemon.process.send_signal(signal.SIGHUP)
            daemon.wait_until(lambda: rule.hits, "the settings are being read")
            starved(daemon, manager)
            fill(site.folder, {"meanwhile.jpg": picture(1)})
            daemon.wait_until(decided(site, 1), "the stages work on")
            assert "The settings were reloaded" not in daemon.said
            daemon.process.send_signal(signal.SIGHUP)  # a signal ends the wait
            fed(daemon, manager)
            assert "The settings were reloaded" in daemon.said
            assert "makes no progress" not in daemon.said


def children(daemon: Daemon, module: str) -> list[psutil.Process]:
    """The processes of a module that a daemon started."""
    found = psutil.Process(daemon.process.pid).children()
    return [child for child in found if any(module in part for part in child.cmdline())]


def test_an_abort_tells_where_every_thread_is(site: Site) -> None:
    """It is how the watchdog of systemd ends a daemon that hangs."""
    daemon = Daemon(site, (), {}, (site.folder,))
    try:
        daemon.wait_until_ready()
        daemon.process.send_signal(signal.SIGABRT)
        assert daemon.process.wait(20) == -signal.SIGABRT
        assert "Fatal Python error: Aborted" in daemon.said
        assert "daemon/ingest/intake.py" in daemon.said
        assert "daemon/service.py" in daemon.said
    finally:
        daemon.kill()
