import os
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon.sd_notify import Notifier, watchdog_interval


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    """A real datagram socket in the place of systemd's, and the value of NOTIFY_SOCKET."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    listener.settimeout(5)
    if request.param == "path":
        value = str(tmp_path / "notify")
        listener.bind(value)
    else:
        value = f"@stillwatch-test-{uuid.uuid4()}"
        listener.bind("\0" + value[1:])
    yield listener, value
    listener.close()


def test_every_message_arrives_as_systemd_reads_it(manager: tuple[socket.socket, str]) -> None:
    listener, value = manager
    notifier = Notifier({"NOTIFY_SOCKET": value})
    assert notifier.active
    notifier.ready("watching 1 camera")
    notifier.status("two\nlines")
    notifier.watchdog()
    notifier.extend_timeout(12.5)
    notifier.stopping()
    received = [listener.recv(4096) for _ in range(5)]
    assert received == [
        b"READY=1\nSTATUS=watching 1 camera",
        b"STATUS=two lines",
        b"WATCHDOG=1",
        b"EXTEND_TIMEOUT_USEC=12500000",
        b"STOPPING=1",
    ]


def test_reloading_carries_the_monotonic_time(manager: tuple[socket.socket, str]) -> None:
    listener, value = manager
    Notifier({"NOTIFY_SOCKET": value}).reloading()
    first, second = listener.recv(4096).split(b"\n")
    assert first == b"RELOADING=1"
    assert second.startswith(b"MONOTONIC_USEC=")
    assert int(second.split(b"=")[1]) > 0


@pytest.mark.parametrize("environment", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "relative"}])
def test_without_a_manager_nothing_happens(environment: dict[str, str]) -> None:
    notifier = Notifier(environment)
    assert not notifier.active
    notifier.ready()
    notifier.watchdog()


def test_a_vanished_manager_does_not_stop_the_work(tmp_path: Path) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "gone")})
    assert notifier.active
    notifier.watchdog()


def test_the_process_environment_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/some/socket")
    assert Notifier().active


@pytest.mark.parametrize(
    ("environment", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "120000000"}, 60.0),
        ({"WATCHDOG_USEC": "120000000", "WATCHDOG_PID": str(os.getpid())}, 60.0),
        ({"WATCHDOG_USEC": "120000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_watchdog_interval(environment: dict[str, str], seconds: float | None) -> None:
    assert watchdog_interval(environment) == seconds
