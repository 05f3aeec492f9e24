"""A small rendered camera for the dedup judge: a still view, sensor noise, a bright object."""

from collections.abc import Iterable, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from daemon.dedup.comparing import JudgeSettings
from daemon.dedup.grouping import judge_camera
from daemon.messages import ByteArray, CameraVerdicts, JudgedFrame

HEIGHT, WIDTH = 96, 160
START = 1_780_000_000.0
SETTINGS = JudgeSettings()


def scene(seed: int = 0, height: int = HEIGHT, width: int = WIDTH) -> NDArray[np.float64]:
    rng = np.random.default_rng(seed)
    blocks = rng.uniform(40, 200, (height // 8, width // 8)).astype(np.float32)
    view = cv2.resize(blocks, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.asarray(view, dtype=np.float64)


def picture(seed: int, view: NDArray[np.float64], thing: int | None = None) -> ByteArray:
    """A noisy picture of the view; `thing` is the left side in pixels of a bright object."""
    seen = view + np.random.default_rng(seed).normal(0, 1.5, view.shape)
    if thing is not None:
        seen[40:52, thing : thing + 12] = 250
    return np.clip(seen, 0, 255).astype(np.uint8)


def frame(
    number: int, grey: ByteArray, seconds: float | None = None, day: str | None = None
) -> JudgedFrame:
    return JudgedFrame(
        frame_id=number,
        seconds=seconds,
        day=day,
        width=grey.shape[1],
        height=grey.shape[0],
        grey=grey,
        tiles=None,
    )


def camera(things: Sequence[int | None], interval: float | None = 10.0) -> list[JudgedFrame]:
    """One frame for every entry, every `interval` seconds; ids from 100."""
    view = scene()
    return [
        frame(
            100 + index,
            picture(index, view, thing),
            None if interval is None else START + index * interval,
        )
        for index, thing in enumerate(things)
    ]


def judge(frames: Iterable[JudgedFrame], settings: JudgeSettings = SETTINGS) -> CameraVerdicts:
    return judge_camera(frames, settings=settings)


def keepers(result: CameraVerdicts) -> dict[int, int | None]:
    return {one.frame_id: one.keeper_id for one in result.verdicts}
