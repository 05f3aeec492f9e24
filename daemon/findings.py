"""What a check of the doctor finds: one fact and one remedy."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from storage.errors import StillwatchError

Status = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Check:
    """One examined thing. `fix` is empty where there is nothing to mend.

    `steps`: what to do one after the other, where one remedy is not enough.
    """

    id: str
    status: Status
    summary: str
    fix: str = ""
    steps: tuple[str, ...] = ()


def guarded(identifier: str, examine: Callable[[], Iterable[Check]]) -> list[Check]:
    """The findings of one check; what breaks inside it becomes a finding of its own.

    Args:
        identifier: Id of that finding.
        examine: The check; generators are run to their end.
    """
    found: list[Check] = []
    try:
        found.extend(examine())
    except PermissionError as exc:
        what = exc.filename or "something that it needs"
        summary = f"This could not be examined: {what} may not be read by this user."
        found.append(Check(identifier, "warn", summary, "Ask as the user that runs the daemon."))
    except StillwatchError as exc:
        summary = f"This could not be examined: {exc.summary}"
        found.append(Check(identifier, "fail", summary, exc.hint or "Mend that, then ask again."))
    except Exception as exc:  # the doctor must survive whatever is broken
        detail = f"{type(exc).__name__}: {exc}"
        summary = f"This could not be examined: {detail}"
        found.append(Check(identifier, "fail", summary, "Install stillwatch again if it persists."))
    return found


def human_bytes(count: int) -> str:
    """`3.2 GB` for people, in powers of 1000."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 1000 or unit == "TB":
            break
        value /= 1000
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
