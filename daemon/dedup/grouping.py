"""Verdicts over one camera: which frames show nothing that a kept frame does not show.

Frames come in capture order and may be streamed; a call can be resumed where the last one ended,
or at a checkpoint (the judge itself: daemon/dedup/frame_judge.py).
"""

from collections.abc import Iterable, Mapping

from daemon.dedup.comparing import JudgeSettings
from daemon.dedup.frame_judge import Judge
from daemon.dedup.judge_state import JudgeState
from daemon.messages import CameraVerdicts, CheckpointState, JudgedFrame, Verdict


def judge_camera(
    frames: Iterable[JudgedFrame],
    *,
    settings: JudgeSettings,
    resume: bytes | None = None,
    known: Mapping[int, JudgedFrame] | None = None,
) -> CameraVerdicts:
    """Judge frames of one camera in capture order.

    Args:
        frames: Frames that were not judged yet, streamed; exact duplicates taken out before.
        settings: The owner's limits.
        resume: `CameraVerdicts.state` of the last call, or the payload of a checkpoint before
            `frames`; None starts anew.
        known: The frames named by `frames_needed(resume)`. One that is missing no longer serves
            as a keeper.

    Returns:
        A verdict for every frame, in capture order, also for frames of earlier calls that waited
        for the noise model. `ready` False: those of the waiting frames are provisional and come
        again when the call is resumed.
    """
    state = JudgeState() if resume is None else JudgeState.from_bytes(resume, known or {})
    judge = Judge(settings, state)
    verdicts: list[Verdict] = []
    checkpoints: list[CheckpointState] = []
    for frame in frames:
        if judge.checkpoint_due(frame):
            checkpoints.append(CheckpointState(frame_id=frame.frame_id, payload=judge.state()))
        verdicts += judge.add(frame)
    verdicts += judge.waiting()
    return CameraVerdicts(
        verdicts=verdicts,
        moving=judge.moving,
        ready=judge.ready,
        checkpoints=checkpoints,
        state=judge.state(),
    )
