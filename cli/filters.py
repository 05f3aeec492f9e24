"""What the filters of the listing commands mean: states or a folder, times and ages, cameras."""

from datetime import date, datetime, timedelta
from datetime import time as datetime_time
from pathlib import Path

from storage.errors import NotFoundError, UsageError
from storage.reading import Reader
from storage.states import STATES


def split_states(values: list[str]) -> tuple[list[str], Path | None]:
    """Tell the frame states in `--state` values from a state folder.

    `--state` names the state folder everywhere; `frames` takes state names there too.

    Raises:
        UsageError: A value is neither.
    """
    states = [value for value in values if value in STATES]
    others = [value for value in values if value not in STATES]
    if others and "/" not in others[-1] and not Path(others[-1]).is_dir():
        raise UsageError(
            f"There is no frame state and no folder {others[-1]}.",
            hint=f"The states are {', '.join(STATES)}.",
        )
    return states, Path(others[-1]) if others else None


def parse_until(text: str, now: float) -> float:
    """The end of a date, or a time or an age (90m, 12h, 7d), as seconds since the epoch.

    Raises:
        UsageError: It is none of them.
    """
    try:
        day = date.fromisoformat(text)
    except ValueError:
        return parse_since(text, now, option="--until")
    return datetime.combine(day, datetime_time.max).timestamp()


def parse_since(text: str, now: float, option: str = "--since") -> float:
    """A date, a time or an age (90m, 12h, 7d) as seconds since the epoch.

    Raises:
        UsageError: It is none of them; `option` is named.
    """
    units = {"m": "minutes", "h": "hours", "d": "days"}
    try:
        if text[-1:] in units and text[:-1].isdigit():
            return now - timedelta(**{units[text[-1]]: int(text[:-1])}).total_seconds()
        # Without a zone it is the machine's.
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError):
        raise UsageError(
            f"{option} does not understand {text}.",
            hint="Write 2026-05-01, 2026-05-01T12:00, 90m, 12h or 7d.",
        ) from None


def require_camera(reader: Reader, name: str | None) -> None:
    """Refuse the name of a camera that does not exist; None names none.

    Raises:
        NotFoundError: There is no such camera.
    """
    if name is not None and not reader.one("SELECT 1 FROM cameras WHERE name = ?", (name,)):
        raise NotFoundError(f"There is no camera {name}.", hint="`stillwatch status` lists them.")
