"""Signatures are a cache: what was dropped is computed again from the files, to the same bytes."""

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import delete, select

from daemon.jobs import judging
from daemon.jobs.child import JobStoppedError
from daemon.jobs.dedup import plan_dedup
from daemon.jobs.signatures import SignatureSource, signature_parameters
from storage.models import Signature
from tests.end_to_end.judged_site import copy_of, opened, quiet
from tests.end_to_end.process import Row, Site, fill, yard

COUNT = 40
LATE = 22
"""Of the frames; its hour is the middle one of three."""


def name(index: int) -> str:
    """A file name with a capture time: one frame every five minutes."""
    at = datetime(2024, 5, 1, 9, 2) + timedelta(minutes=5 * index)
    return f"cam_{at:%Y%m%d%H%M%S}.jpg"


def shown(index: int) -> bytes:
    """The yard, without the file that the simulated camera sends twice."""
    return yard({30: 62}.get(index, index))


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Frames of three hours but one, recorded and judged; copied for every test."""
    site = Site(tmp_path_factory.mktemp("judged"))
    fill(site.folder, {name(index): shown(index) for index in range(COUNT) if index != LATE})
    site.once()
    return site.base


@pytest.fixture
def site(judged: Path, tmp_path: Path) -> Site:
    return copy_of(judged, tmp_path / "site")


def ids_by_name(site: Site) -> dict[str, int]:
    return {row["path"]: int(row["id"][1:]) for row in site.rows()}


def verdicts(site: Site) -> dict[str, Any]:
    """Path -> path of its keeper and score, of every frame."""
    rows: list[Row] = site.rows()
    paths = {row["id"]: row["path"] for row in rows}
    return {
        row["path"]: (paths.get(row["duplicate_of"] or ""), row["change_score"]) for row in rows
    }


def groups(site: Site) -> dict[str, Any]:
    """Path -> path of its keeper, of every frame."""
    return {path: keeper for path, (keeper, _) in verdicts(site).items()}


def forget_signatures(site: Site) -> None:
    with opened(site) as workshop, workshop.db.write() as connection:
        connection.execute(delete(Signature))


def test_a_frame_is_the_same_from_its_signature_and_from_its_file(site: Site) -> None:
    ids = sorted(ids_by_name(site).values())
    with opened(site) as workshop:
        with workshop.db.read() as connection:
            stored_ids = set(connection.execute(select(Signature.frame_id)).scalars())
        assert stored_ids
        parameters = signature_parameters(workshop)
        with SignatureSource(workshop.db, parameters) as source:
            stored = list(source.frames(ids))
            assert source.recomputed == len(ids) - len(stored_ids)
        with SignatureSource(workshop.db, parameters, from_files=True) as source:
            again = list(source.frames(ids))
            assert (source.recomputed, source.missing) == (len(ids), {})
    assert [frame.frame_id for frame in stored] == [frame.frame_id for frame in again] == ids
    for one, other in zip(stored, again, strict=True):
        assert np.array_equal(one.grey, other.grey)
        assert one.tiles is not None
        assert other.tiles is not None
        assert one.tiles.dtype == np.int8
        assert np.array_equal(one.tiles, other.tiles)
        assert np.array_equal(one.vector, other.vector)  # type: ignore[arg-type]
        facts = ("seconds", "day", "width", "height")
        assert all(getattr(one, fact) == getattr(other, fact) for fact in facts)


def test_a_file_that_is_gone_or_changed_gives_no_signature_but_a_reason(site: Site) -> None:
    ids = ids_by_name(site)
    forget_signatures(site)
    (site.folder / name(3)).unlink()
    (site.folder / name(4)).write_bytes(shown(12))
    (site.folder / name(5)).write_bytes(b"no picture")
    wanted = [ids[name(index)] for index in (2, 3, 4, 5, 6)]
    with opened(site) as workshop:
        with SignatureSource(workshop.db, signature_parameters(workshop)) as source:
            assert list(source.load([*wanted, 999_999])) == [wanted[0], wanted[4]]
            assert source.missing[wanted[1]] == "its file is gone"
            assert source.missing[wanted[2]] == "its file has other content than was recorded"
            assert "no picture" in source.missing[wanted[3]]
            assert source.missing[999_999] == "it has no vector in this space"
        site.folder.rename(site.base / "away")
        with SignatureSource(workshop.db, signature_parameters(workshop)) as source:
            assert source.load(wanted[:1]) == {}
            assert source.missing == {wanted[0]: "the folder of its camera is away"}


def test_a_late_frame_judges_its_camera_again_from_the_checkpoint_before_it(
    site: Site, tmp_path: Path
) -> None:
    whole = Site(tmp_path / "whole")
    fill(whole.folder, {name(index): shown(index) for index in range(COUNT)})
    whole.once()
    forget_signatures(site)
    states = "SELECT position, payload, created_at FROM dedup_checkpoints ORDER BY position"
    before = {position: rest for position, *rest in site.table(states)}
    assert sorted(before) == [-1, 0, 1, 2]
    fill(site.folder, {name(LATE): shown(LATE)})
    site.once()
    after = {position: rest for position, *rest in site.table(states)}
    assert after[0] == before[0], "the hour before it was judged again"
    assert after[1] != before[1]
    # runs whose keepers were chosen keep the scores of their first judging
    assert groups(site) == groups(whole)
    assert verdicts(site)[name(LATE)] == verdicts(whole)[name(LATE)]
    assert sum(keeper is not None for keeper, _ in verdicts(site).values()) > COUNT // 3
    site.verify()


def test_an_applied_verdict_is_not_reopened_by_a_late_frame(site: Site) -> None:
    plan = site.cli("dedup", "apply", "--yes", "--json")
    assert plan.code == 0, plan.err
    filed = {
        row["id"]: (row["duplicate_of"], row["change_score"], row["path"])
        for row in site.rows()
        if row["duplicate_of"]
    }
    assert len(filed) > COUNT // 3
    forget_signatures(site)
    fill(site.folder, {name(LATE): shown(LATE)})
    site.once()
    rows = {row["id"]: row for row in site.rows()}
    assert filed == {
        i: (rows[i]["duplicate_of"], rows[i]["change_score"], rows[i]["path"]) for i in filed
    }
    keepers = {keeper for keeper, *_ in filed.values()}
    assert {rows[keeper]["duplicate_of"] for keeper in keepers} == {None}
    site.verify()


def test_a_killed_recompute_goes_on_where_it_was(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judging, "SLICE", 10)
    before, seen = verdicts(site), "SELECT count(*) FROM frames WHERE judged"
    handed: list[tuple[int, int]] = []
    with opened(site) as workshop:

        def stop_in_the_third_slice(stage: str, done: int, total: int) -> None:
            handed.append((done, total))
            if stage == "judging frames" and done == 20:
                workshop.processes.stop()

        with pytest.raises(JobStoppedError):
            plan_dedup(workshop, stop_in_the_third_slice, at_once=True, recompute=True)
    assert handed[-1] == (20, COUNT - 1)
    assert site.table(seen) == [(20,)]
    handed.clear()
    with opened(site) as workshop:

        def listen(stage: str, done: int, total: int) -> None:
            if stage == "judging frames":
                handed.append((done, total))

        plan = plan_dedup(workshop, listen, at_once=True, recompute=True)
    assert handed == [(10, COUNT - 1 - 20)]
    assert site.table(seen) == [(COUNT - 1,)]
    assert verdicts(site) == before
    assert site.table("SELECT value FROM meta WHERE key = 'dedup_recompute'") in ([], [("null",)])
    with opened(site) as workshop:  # the next one begins anew, and finds the same
        assert plan_dedup(workshop, quiet, at_once=True, recompute=True)["run"] == plan["run"]
    assert verdicts(site) == before
