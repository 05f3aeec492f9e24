"""How large the database is a frame, and how long a plan over stored verdicts takes.

    python -m tests.benchmarks.dedup_storage DEV_FOLDER WORK_FOLDER [--quick]

Sizes: real frames of three cameras go through the real program; its database is copied to 10,000
frames by SQL (every copy with its own ids and paths) and weighed with and without the frames in
question, vacuumed both times. Planning: 100,000 rows with stored verdicts and vectors, planned by
the product in a process of its own.
"""

import argparse
import multiprocessing
import resource
import shutil
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from daemon.jobs.dedup import plan_dedup
from daemon.jobs.workshop import Workshop
from daemon.settings import Settings
from storage.database_file import DATABASE_NAME, sqlite_driver
from storage.engine import Database
from tests.benchmarks.planned_state import fill_verdicts
from tests.benchmarks.rows import Row, table
from tests.benchmarks.workload import Daemon, write_settings

CAMERAS: Final = ("fixedcam_road", "fixedcam_tunnel", "fixedcam_plaza")
FRAMES: Final = 10_000
PLANNED: Final = 100_000
REMOVED_BYTES: Final = 3_500
KEEPER_BYTES: Final = 70_000
PLAN_SECONDS: Final = 120.0
PLAN_MEGABYTES: Final = 1_000.0
_SPAN: Final = 1_000_000
"""Between the ids of two copies."""
_OWN_ROWS: Final = {"frames": "id", "embeddings": "frame_id", "plan_entries": "frame_id"}
_REMOVED: Final = "SELECT id FROM frames WHERE duplicate_kind = 'near'"


def measure(dev: Path, work: Path, quick: bool) -> list[Row]:
    """Size a frame, then the plan; `quick` plans fewer frames."""
    return [*sizes(dev, work / "sizes"), *planning(work / "plan", 10_000 if quick else PLANNED)]


def sizes(dev: Path, work: Path) -> list[Row]:
    """The rows about bytes, and about judging everything again."""
    shutil.rmtree(work, ignore_errors=True)
    pictures, state = work / "pictures", work / "state"
    for name in CAMERAS:
        shutil.copytree(dev / name, pictures / name)
    write_settings(state, {"cameras": {"by_subfolder": True}})
    with Daemon(state, pictures, "--once") as daemon:
        daemon.process.communicate(timeout=900)
    weighed = weigh(state / DATABASE_NAME, work)
    return [
        _at_most("a removed frame", weighed.removed, REMOVED_BYTES, "row, vector, plan entry"),
        _at_most(
            "a keeper with its signature",
            weighed.keeper,
            KEEPER_BYTES,
            f"of them {weighed.signature / 1e3:.1f} KB grey and tile map",
        ),
        Row("a checkpoint", _kilobytes(weighed.checkpoint), "", None, "48 a camera"),
        Row(
            f"database of {FRAMES:,} frames",
            f"{weighed.whole / 1e6:.1f} MB",
            "",
            None,
            f"{weighed.share_removed:.0%} removed; {weighed.free / 1e6:.1f} MB more are free pages",
        ),
        recompute(state),
    ]


@dataclass(frozen=True, slots=True)
class Weighed:
    """Bytes; of `whole` and `free` those of the database, of the others on average."""

    removed: float
    keeper: float
    signature: float
    checkpoint: float
    whole: float
    free: float
    share_removed: float


def recompute(state: Path) -> Row:
    """Everything judged again, from the files."""
    with closing(Database(state)) as database:
        workshop = Workshop(state_dir=state, db=database, settings=Settings())
        with database.write() as connection:
            connection.exec_driver_sql("DELETE FROM signatures")
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        start = time.perf_counter()
        plan_dedup(workshop, lambda _stage, _done, _total: None, at_once=True, recompute=True)
        seconds = time.perf_counter() - start
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        with database.read() as connection:
            count = connection.exec_driver_sql("SELECT count(*) FROM frames").scalar() or 1
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Row(
        "`dedup plan --recompute`",
        f"{1000 * used / count:.1f} ms a frame of CPU, {count / seconds:.0f} frames/s",
        "",
        None,
        f"{count} frames decoded, encoded and judged",
    )


def weigh(database: Path, work: Path) -> Weighed:
    """Copy the database to 10,000 frames and weigh its parts."""
    large = work / "large.db"
    with closing(sqlite_driver().connect(str(database))) as source:
        source.execute("VACUUM INTO ?", (str(large),))
        signatures = "SELECT avg(length(grey) + coalesce(length(tiles), 0)) FROM signatures"
        with_signature = source.execute("SELECT count(*) FROM signatures").fetchone()[0]
        signature = source.execute(signatures).fetchone()[0]
        checkpoint = source.execute("SELECT avg(length(payload)) FROM dedup_checkpoints")
        checkpoint_bytes = checkpoint.fetchone()[0]
        free = _pragma(source, "freelist_count") * _pragma(source, "page_size")
    with closing(sqlite_driver().connect(str(large))) as copy:
        count = copy.execute("SELECT count(*) FROM frames").fetchone()[0]
        for number in range(1, -(-FRAMES // count)):
            _copy_rows(copy, number * _SPAN)
        copy.execute("DELETE FROM embeddings WHERE frame_id NOT IN (SELECT id FROM frames)")
        copy.commit()
        frames = copy.execute("SELECT count(*) FROM frames").fetchone()[0]
        removed = copy.execute(f"SELECT count(*) FROM ({_REMOVED})").fetchone()[0]
        whole = _vacuumed(copy)
        for name, column in reversed(_OWN_ROWS.items()):
            copy.execute(f"DELETE FROM {name} WHERE {column} IN ({_REMOVED})")
        without_removed = _vacuumed(copy)
        copy.execute("DELETE FROM signatures")
        without_signatures = _vacuumed(copy)
    row = (whole - without_removed) / removed
    return Weighed(
        removed=row,
        keeper=row + (without_removed - without_signatures) / with_signature,
        signature=signature,
        checkpoint=checkpoint_bytes,
        whole=whole * FRAMES / frames,
        free=free,
        share_removed=removed / frames,
    )


def _copy_rows(connection: Any, offset: int) -> None:
    """Once more all frames with their vectors and plan entries, under other ids and paths."""
    shifted = {"id", "frame_id", "keeper_id", "duplicate_of", "nearest_frame_id"}
    for name in _OWN_ROWS:
        columns = [row[1] for row in connection.execute(f"PRAGMA table_info({name})")]
        values = [
            f"{column} + {offset}"
            if column in shifted
            else (f"CAST('{offset}/' || {column} AS BLOB)" if column == "path" else column)
            for column in columns
        ]
        connection.execute(
            f"INSERT INTO {name} ({', '.join(columns)}) SELECT {', '.join(values)} FROM {name}"
            f" WHERE {_OWN_ROWS[name]} < {_SPAN}"
        )


def _vacuumed(connection: Any) -> int:
    """Bytes of the database after VACUUM."""
    connection.commit()
    connection.execute("VACUUM")
    return _pragma(connection, "page_count") * _pragma(connection, "page_size")


def _pragma(connection: Any, name: str) -> int:
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])


def planning(work: Path, count: int) -> list[Row]:
    """Time and memory of a plan over stored verdicts: the first one, and the next one."""
    shutil.rmtree(work, ignore_errors=True)
    fill_verdicts(work, count)
    context = multiprocessing.get_context("spawn")
    rows = []
    for which in ("first", "next"):
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            seconds, megabytes = pool.submit(plan_once, work).result()
        rows.append(
            Row(
                f"{which} plan over {count:,} stored verdicts",
                f"{seconds:.1f} s, {megabytes:.0f} MB",
                f"at most {PLAN_SECONDS:.0f} s, {PLAN_MEGABYTES:.0f} MB",
                seconds <= PLAN_SECONDS and megabytes <= PLAN_MEGABYTES,
            )
        )
    return rows


def plan_once(state: Path) -> tuple[float, float]:
    """Seconds of a plan, and the peak memory in MB of this process."""
    with closing(Database(state)) as database:
        workshop = Workshop(state_dir=state, db=database, settings=Settings())
        start = time.perf_counter()
        plan_dedup(workshop, lambda _stage, _done, _total: None, at_once=True)
        seconds = time.perf_counter() - start
    return seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


def _at_most(name: str, found: float, limit: int, note: str) -> Row:
    return Row(name, _kilobytes(found), f"at most {_kilobytes(limit)}", found <= limit, note)


def _kilobytes(count: float) -> str:
    return f"{count / 1000:.1f} KB"


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("dev", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--quick", action="store_true")
    chosen = parser.parse_args(arguments)
    print(table(measure(chosen.dev, chosen.work, chosen.quick)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
