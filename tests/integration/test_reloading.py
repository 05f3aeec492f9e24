"""Which settings hold at once, which wait for a restart, and what a damaged file does."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from daemon.reloading import SETTINGS_KEY, SettingsFile, differences
from daemon.settings import Settings, load_settings
from storage import meta
from storage.engine import Database


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    database = Database(tmp_path)
    yield database
    database.close()


def started(db: Database, path: Path) -> SettingsFile:
    settings = load_settings(path)
    return SettingsFile(path, required=False, settings=settings, db=db, wall=lambda: 7.0)


def told(db: Database) -> dict[str, Any]:
    with db.read() as connection:
        found: dict[str, Any] = meta.get(connection, SETTINGS_KEY)
    return found


@pytest.mark.parametrize(
    ("text", "changed", "restart"),
    [
        ("", [], []),
        ("[dedup]\nmax_change = 1.5", ["dedup.max_change"], []),
        ("[prune]\nenabled = true", ["prune.enabled"], []),
        ("[filing]\nenabled = true\nmode = 'copy'", ["filing.enabled", "filing.mode"], []),
        ("[ingest]\nrescan_seconds = 9", ["ingest.rescan_seconds"], []),
        ("[ingest]\ndecode_children = 1", [], ["ingest.decode_children"]),
        ("[encoder]\nthreads = 1", [], ["encoder.threads"]),
        ("[clustering]\nfalse_novel_rate = 0.1", [], ["clustering.false_novel_rate"]),
        ("[[camera]]\nroot = '/x'", [], ["camera"]),
        ("[cameras]\nkind = 'archive'", [], ["cameras.kind"]),
        (
            "[clustering]\nmin_cluster_size = 5\n[encoder]\nbatch = 2",
            ["clustering.min_cluster_size"],
            ["encoder.batch"],
        ),
    ],
)
def test_what_holds_at_once_and_what_waits(
    db: Database, tmp_path: Path, text: str, changed: list[str], restart: list[str]
) -> None:
    path = tmp_path / "settings.toml"
    path.write_text("")
    file = started(db, path)
    path.write_text(text)
    reload = file.reload()
    assert (reload.changed, reload.restart, reload.problem) == (changed, restart, None)
    assert differences(Settings(), file.in_force) == changed
    assert differences(file.in_force, load_settings(path)) == restart
    assert told(db) == {"at": 7.0, "path": str(path), "problem": None, "restart": restart}


def test_prune_pauses_while_the_file_is_damaged_and_goes_on_when_it_is_mended(
    db: Database, tmp_path: Path
) -> None:
    path = tmp_path / "settings.toml"
    good = "[prune]\nenabled = true\n[dedup]\nmax_change = 1.5\n"
    path.write_text(good)
    file = started(db, path)
    for _ in range(2):
        path.write_text("[prune]\nenabled = true\ntrash_after_days = -3\n")
        reload = file.reload()
        assert reload.problem is not None
        assert "prune.trash_after_days" in reload.problem
        assert not file.in_force.prune.enabled
        assert file.in_force.dedup.max_change == 1.5
        assert told(db)["problem"] == reload.problem
    path.write_text(good)
    assert file.reload().changed == ["prune.enabled"]
    assert file.in_force == load_settings(path)
    assert told(db)["problem"] is None
