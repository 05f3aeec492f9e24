"""The status screen: one page of facts for a terminal."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cli.output import Column, left_words, make_table, printable
from storage.states import STATES

if TYPE_CHECKING:
    from rich.text import Text

_STYLES: Final = {
    "running": "bold green",
    "degraded": "bold yellow",
    "stopped": "bold",
}
_UNITS: Final = ("B", "kB", "MB", "GB", "TB")


def status_screen(
    facts: Mapping[str, Any],
    cameras: Sequence[Mapping[str, Any]],
    pid: int | None,
    state_dir: Path,
    now: float,
) -> list[Any]:
    """The renderables of the screen.

    Args:
        facts: The contract's status object.
        cameras: `storage.overview.camera_summaries`.
        pid: The daemon's process, 0 if it cannot be told, None without one.
        state_dir: The state folder.
        now: Seconds since the epoch, for ages.
    """
    return [
        _headline(facts, pid, state_dir),
        "",
        _camera_table(cameras, now) if cameras else "no camera yet",
        "",
        _summary(facts, now),
        *_problems(cameras),
    ]


def _headline(facts: Mapping[str, Any], pid: int | None, state_dir: Path) -> "Text":
    from rich.text import Text

    state = str(facts["state"])
    line = Text.assemble(("stillwatch", "bold"), "   ", (state, _STYLES[state]))
    if pid:
        line.append(f"   pid {pid}")
    line.append(f"   {printable(str(state_dir))}", "dim")
    return line


def _camera_table(cameras: Sequence[Mapping[str, Any]], now: float) -> Any:
    return make_table(
        (
            Column("CAMERA", "name"),
            Column("STATE", "state"),
            Column("KIND", "kind"),
            Column("LAST FRAME", lambda camera: age(camera["last_arrival_at"], now)),
            Column("FRAMES", lambda camera: f"{camera['total']:,}", right=True),
            Column("PENDING", lambda camera: f"{camera['pending']:,}", right=True),
            Column("NOVEL", lambda camera: f"{camera['novel']:,}", right=True),
            Column("DUPLICATES", _duplicate_share, right=True),
            Column("FOLDER", "root"),
        ),
        cameras,
    )


def _duplicate_share(camera: Mapping[str, Any]) -> str:
    if not camera["total"]:
        return "-"
    return f"{camera['duplicates']:,} ({100 * camera['duplicates'] / camera['total']:.0f} %)"


def settings_problems(facts: Mapping[str, Any]) -> dict[str, str]:
    """What is not as it should be, in words: a pause, settings not in force; empty where all is."""
    if facts.get("paused"):
        return {"paused": facts["paused"]}
    told = facts.get("settings")
    if told is None:
        return {}
    if told["problem"]:
        what = "the old ones hold, and nothing is pruned"
        return {"settings": f"not reloaded ({what}): {told['problem']}"}
    return {"settings": f"need a restart: {told['restart']}"} if told["restart"] else {}


def _summary(facts: Mapping[str, Any], now: float) -> Any:
    frames, sizes, latency = facts["frames"], facts["bytes"], facts["latency_ms"]
    states = ", ".join(
        f"{frames[state]:,} {state.replace('_', ' ')}" for state in STATES if frames[state]
    )
    lines = {
        "frames": f"{frames['total']:,}, on disk {frames['on_disk']:,}"
        + (f" ({states})" if states else ""),
        "clusters": f"{facts['clusters']:,}; {_last(facts['last_recluster'], 'recluster', now)}",
        "duplicates": f"{human_bytes(sizes['redundant'])} of {human_bytes(sizes['total'])}"
        f" redundant, {human_bytes(sizes['freed'])} freed;"
        f" {_last(facts['last_dedup'], 'dedup', now)}",
        "encoder": _encoder(facts["encoder"]),
    }
    for camera in facts["cameras"]:
        if camera["novelty"] and camera["novelty"]["frames"]:
            lines[f"novelty of {camera['name']}"] = _novelty(camera["novelty"])
        if camera["dedup_test"]:
            lines[f"change test of {camera['name']}"] = _dedup_test(camera["dedup_test"], now)
    if facts["last_prune"]:
        lines["prune"] = _prune(facts["last_prune"], now)
    if facts["job"]:
        lines["working on"] = job_words(facts["job"])
    if latency:
        lines["latency"] = (
            f"{latency['p50'] / 1000:.2f} s median, {latency['p99'] / 1000:.2f} s p99,"
            " from the last change of a file to its row"
        )
    for name, text in settings_problems(facts).items():
        lines[name] = text
    if facts["ignored"]:
        lines["ignored"] = f"{facts['ignored']:,} files that are no pictures by their extension"
    return _labelled(lines, "cyan")


def _labelled(lines: Mapping[str, str], style: str) -> Any:
    """Labels on the left, text beside them, wrapped within its column."""
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2))
    for label, text in lines.items():
        grid.add_row(Text(label, style), Text(printable(text)))
    return grid


def _novelty(rates: Mapping[str, Any]) -> str:
    promised = rates["promised"]
    words = f"{100 * rates['realised']:.1f} % of the last {rates['frames']:,} new views alarmed"
    return words if promised is None else f"{words}; promised at most {100 * promised:g} % false"


def _prune(last: Mapping[str, Any], now: float) -> str:
    words = (
        f"{last['trashed']:,} to the trash, {last['deleted']:,} deleted"
        f" ({human_bytes(last['bytes_freed'])}) {age(last['at'], now)}"
    )
    skipped = f"; {last['skipped']:,} skipped (`stillwatch runs`)" if last["skipped"] else ""
    return f"{words}{skipped}" + (f". {last['note']}" if last["note"] else "")


def _dedup_test(test: Mapping[str, Any], now: float) -> str:
    """What `dedup evaluate` found: what it loses, and what the owner's choice means."""
    when = age(test["at"], now)
    if not test["quiet_pairs"]:
        return f"nothing to test it on, {when} (`stillwatch dedup evaluate`)"
    words = (
        f"{test['things_lost']} of {test['things']} things put in lost,"
        f" {test['quiet_pairs_found']} of {test['quiet_pairs']} quiet views found"
    )
    if test["predicted"] is not None:
        words += f"; limit {test['limit']:.2f} finds {100 * test['predicted']:.0f} % of the quiet"
    if test["quiet_found"] is not None:
        words += f" ({100 * test['quiet_found']:.0f} % wanted)"
    return f"{words}; tested {when}"


def _last(run: Mapping[str, Any] | None, word: str, now: float) -> str:
    if run is None:
        return f"no {word} yet"
    seconds = "" if run["seconds"] is None else f", {run['seconds']:.1f} s"
    return f"last {word} {age(run['at'], now)} ({run['run']}{seconds})"


def job_words(job: Mapping[str, Any]) -> str:
    """The job under way: `recluster: finding bursts, 30/100, 12 s, about 20 s left`."""
    count = f", {job['done']:,}/{job['total']:,}" if job["total"] else ""
    times = f"{job['seconds']:.0f} s{left_words(job['seconds_left'])}"
    return f"{job['kind']}: {job['stage']}{count}, {times}"


def _encoder(encoder: Mapping[str, Any]) -> str:
    if encoder["switch"]:
        return _switch(encoder, encoder["switch"])
    progress = encoder["progress"]
    words = [str(encoder["id"] or "none yet"), str(encoder["state"])]
    if isinstance(progress, int | float) and progress < 1:
        words.append(f"{100 * progress:.0f} %")
    return ", ".join(words)


def _switch(encoder: Mapping[str, Any], switch: Mapping[str, Any]) -> str:
    """A change under way: `a serves; changing to b: encoding, 3 of 9 frames, about 2 s left`."""
    words = f"{encoder['id']} serves; changing to {switch['to']}: {switch['stage']}"
    words += f", {switch['done']:,} of {switch['total']:,} frames"
    if switch["left_out"]:
        words += f" ({switch['left_out']:,} cannot be: `stillwatch encoders`)"
    return words + left_words(switch["seconds_left"])


def _problems(cameras: Sequence[Mapping[str, Any]]) -> list[Any]:
    lines = {f"! {name}": text for name, text in problems(cameras).items()}
    return ["", _labelled(lines, "yellow")] if lines else []


def problems(cameras: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Camera name -> what is wrong with it or may be, in words; only where there is something."""
    found = {}
    for camera in cameras:
        told = [*camera["hindrances"].values()]
        told += [camera[key] for key in ("filing", "suggestion") if camera[key]]
        if camera["reason"] and camera["state"] != "inactive":
            told.insert(0, f"{camera['state']}: {camera['reason']}")
        if told:
            found[printable(str(camera["name"]))] = "; ".join(told)
    return found


def age(moment: str | None, now: float) -> str:
    """How long ago an ISO-8601 time was, in words."""
    if moment is None:
        return "-"
    seconds = max(0.0, now - datetime.fromisoformat(moment).timestamp())
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"


def counted(number: int, noun: str) -> str:
    """A number with its noun: `1 frame`, `12 frames`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def human_bytes(count: float) -> str:
    """A number of bytes in decimal units, as `12.3 MB`."""
    for unit in _UNITS:
        if count < 1000 or unit == _UNITS[-1]:
            break
        count /= 1000
    return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
