"""How long daemons have been up in all, and whether the wall clock can be believed.

Retention counts time twice: by the wall clock and by these seconds, which only a running daemon's
monotonic clock adds to. A wall clock that jumps ten years ahead therefore deletes nothing.
"""

import math
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection

from storage import meta

KEY: Final = "uptime"
JUMP_SECONDS: Final = 600.0
"""Difference between both clocks from which the wall clock was set, not merely steered."""
ABSENCE_SECONDS: Final = 366 * 86400.0
"""Nothing ran for longer than this: rather a clock set wrong than a camera nobody looked at."""
DISTRUST_SECONDS: Final = 86400.0
"""Seconds of uptime for which a wall clock that jumped is not believed."""
EARLIEST: Final = 1_577_836_800.0
"""2020-01-01: a clock before that was never set, as 1970 on a board without a battery."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Uptime:
    """The counter. `seconds` in all; `wall` when it was advanced last; `jumped`: see `advance`."""

    seconds: float = 0.0
    wall: float | None = None
    jumped: float | None = None


def read(connection: Connection) -> Uptime:
    """The counter as it was stored last."""
    stored: dict[str, Any] = meta.get(connection, KEY, {})
    return Uptime(**stored)


def total(connection: Connection) -> float:
    """Seconds that daemons have been up in all."""
    return read(connection).seconds


def advance(connection: Connection, seconds: float, wall: float, *, first: bool = False) -> Uptime:
    """Add what the monotonic clock has counted since the last call.

    Args:
        connection: Of a write transaction.
        seconds: By the monotonic clock; 0 at a daemon's start.
        wall: The wall clock now.
        first: A daemon has just started: the time it was down for is not known.

    Returns:
        The counter; `jumped` is the uptime at which the wall clock was last seen to be set.
    """
    before = read(connection)
    now = before.seconds + max(0.0, seconds)
    jumped = before.jumped
    if before.wall is not None:
        ahead = wall - before.wall - seconds
        limit = ABSENCE_SECONDS if first else JUMP_SECONDS
        if ahead > limit or ahead < -JUMP_SECONDS:
            jumped = now
    after = Uptime(seconds=now, wall=wall, jumped=jumped)
    meta.put(connection, KEY, {"seconds": now, "wall": wall, "jumped": jumped})
    return after


def since_jump(connection: Connection) -> float:
    """Seconds of uptime since the wall clock was last seen to be set; without end: never."""
    known = read(connection)
    return math.inf if known.jumped is None else known.seconds - known.jumped


def distrust(connection: Connection, wall: float) -> str | None:
    """Why the wall clock cannot be believed now, in words; None if it can."""
    known = read(connection)
    if wall < EARLIEST:
        return "the clock was never set"
    if known.wall is not None and wall < known.wall - JUMP_SECONDS:
        return "the clock is behind the time that was noted last"
    if known.wall is not None and wall > known.wall + ABSENCE_SECONDS:
        return "the clock is more than a year ahead of the time that was noted last"
    if since_jump(connection) < DISTRUST_SECONDS:
        return "the clock was set lately; it is believed after a day of running without a jump"
    return None
