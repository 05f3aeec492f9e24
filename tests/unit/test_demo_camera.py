import threading
from pathlib import Path

from daemon.demo.camera import SimulatedCamera, frame_name
from daemon.demo.render import render_jpeg


def at_once(_index: int) -> float:
    return 0.0


def test_everything_delivered_is_whole_and_named_by_time(tmp_path: Path) -> None:
    camera = SimulatedCamera(tmp_path, seed=3)
    camera.play(threading.Event(), at_once, frames=6)
    assert camera.delivered == 6
    assert sorted(path.name for path in tmp_path.iterdir()) == [frame_name(i) for i in range(6)]
    # Frame 3 was written in pieces under its own name, the others by rename.
    for index in range(6):
        assert (tmp_path / frame_name(index)).read_bytes() == render_jpeg(index, 3)


def test_it_stops_when_told(tmp_path: Path) -> None:
    stop = threading.Event()
    camera = SimulatedCamera(tmp_path)
    player = threading.Thread(target=camera.play, args=(stop, lambda index: index * 3600.0))
    player.start()
    while camera.delivered < 1 and player.is_alive():
        stop.wait(0.01)
    stop.set()
    player.join(timeout=10)
    assert not player.is_alive()
    assert camera.delivered == 1
