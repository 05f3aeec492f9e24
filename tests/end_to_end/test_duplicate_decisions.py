"""Keepers of ended runs, what humans say of duplicates, and verdicts that lapse: on real files."""

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from daemon.jobs.decision_undo import undo_decisions
from daemon.jobs.dedup import plan_dedup
from daemon.jobs.duplicate_decisions import keep_frames, make_keeper, set_apart
from storage import meta
from storage.errors import ConflictError, NotFoundError
from tests.end_to_end.judged_site import copy_of, opened, quiet
from tests.end_to_end.process import Row, Site, fill, yard

COUNT = 40
Verdicts = dict[str, tuple[str | None, str | None]]


def name(index: int) -> str:
    """A file name with a capture time: one frame every two minutes."""
    at = datetime(2024, 5, 1, 9, 2) + timedelta(minutes=2 * index)
    return f"cam_{at:%Y%m%d%H%M%S}.jpg"


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Frames recorded, judged and planned with the default policy; copied for every test."""
    site = Site(tmp_path_factory.mktemp("judged"))
    fill(site.folder, {name(index): yard(index) for index in range(COUNT) if index != 30})
    site.once()
    return site.base


@pytest.fixture
def site(judged: Path, tmp_path: Path) -> Site:
    return copy_of(judged, tmp_path / "site")


def plan(site: Site, *, recompute: bool = False, **dedup: Any) -> dict[str, Any]:
    with opened(site, **dedup) as workshop:
        return plan_dedup(workshop, quiet, at_once=True, recompute=recompute)


def verdicts(site: Site) -> Verdicts:
    """Frame -> (its keeper or None, reason)."""
    return {row["id"]: (row["duplicate_of"], row["reason"]) for row in site.rows()}


def members(site: Site) -> dict[str, list[str]]:
    """Keeper -> its near-duplicates."""
    groups: dict[str, list[str]] = {}
    for row in site.rows():
        if row["state"] == "near_duplicate":
            groups.setdefault(row["duplicate_of"], []).append(row["id"])
    return groups


def largest(site: Site) -> tuple[str, list[str]]:
    return max(members(site).items(), key=lambda item: len(item[1]))


def blurred(index: int) -> bytes:
    """The yard, out of focus."""
    picture = cv2.imdecode(np.frombuffer(yard(index), np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None
    width = picture.shape[1]
    done, data = cv2.imencode(".jpg", cv2.GaussianBlur(picture, (0, 0), 0.7 * width / 320))
    assert done
    return bytes(data)


def number(frame: str) -> int:
    return int(frame[1:])


def row_of(site: Site, frame: str) -> Row:
    return next(row for row in site.rows() if row["id"] == frame)


def settled(site: Site) -> int:
    return int(site.table("SELECT count(*) FROM frames WHERE run_settled")[0][0])


def test_an_ended_run_keeps_its_last_frame_and_is_settled_once(site: Site) -> None:
    reasons = {frame: reason for frame, (_, reason) in verdicts(site).items()}
    lasts = [frame for frame, reason in reasons.items() if (reason or "").startswith("last of ")]
    assert lasts, "the yard stands still for more than ten minutes"
    for frame in lasts:
        assert row_of(site, frame)["state"] != "near_duplicate"
    first = str(reasons[lasts[0]]).rpartition(" ")[2]
    assert first in members(site), "the first frame of that run is still its keeper"
    before, made = verdicts(site), plan(site)
    again = plan(site)
    assert (again["run"], verdicts(site)) == (made["run"], before)
    measured = site.table("SELECT count(*) FROM frames WHERE sharpness > 0 AND exposure > 0")
    assert measured == [(COUNT - 1,)]


def test_a_run_that_begins_out_of_focus_gets_a_sharper_keeper(tmp_path: Path) -> None:
    site = Site(tmp_path / "site")
    fill(site.folder, {name(index): yard(index) for index in range(26)} | {name(0): blurred(0)})
    site.once()
    rows = {row["path"]: row for row in site.rows()}
    first = rows[name(0)]
    assert first["state"] == "near_duplicate"
    keeper = next(row for row in rows.values() if row["id"] == first["duplicate_of"])
    assert keeper["reason"].startswith(
        f"keeper of {len(members(site)[keeper['id']]) + 1} frames: sharper than {first['id']} ("
    )
    site.verify()
    before = verdicts(site)
    site.once()
    assert verdicts(site) == before


def test_a_policy_exchanges_keepers_and_is_not_reopened(site: Site) -> None:
    before = members(site)
    plan(site, recompute=True, keeper="medoid")
    after = members(site)
    new = {
        frame: reason
        for frame, (keeper, reason) in verdicts(site).items()
        if keeper is None and (reason or "").startswith("keeper of ")
    }
    assert new, "no run has a more typical frame than its first"
    assert not set(new) & set(before)
    for frame, reason in new.items():
        assert reason is not None
        # itself counts, and the old keeper follows like the others
        assert reason == f"keeper of {len(after[frame]) + 1} frames: the most typical of them"
        assert min(map(number, after[frame])) < number(frame)
    site.verify()
    written = verdicts(site)
    assert settled(site) >= len(new)
    plan(site, keeper="first")
    plan(site, keeper="last")
    assert verdicts(site) == written


def test_a_frame_that_matches_an_exchanged_keeper_is_compared_with_the_new_one(
    site: Site,
) -> None:
    plan(site, recompute=True, keeper="medoid")
    old, new = next(
        (row["id"], row["duplicate_of"])
        for row in site.rows()
        if row["duplicate_of"] and number(row["id"]) < number(row["duplicate_of"])
    )
    late = members(site)[new][-1]
    with opened(site) as workshop, workshop.db.write() as connection:
        # as the judge leaves a frame that came later: redundant against the keeper that it knows
        connection.exec_driver_sql(
            f"UPDATE frames SET duplicate_of = {number(old)} WHERE id = {number(late)}"
        )
    plan(site, keeper="medoid")
    assert row_of(site, late)["duplicate_of"] == new
    site.verify()


def test_a_kept_frame_stays_through_plans_and_recomputing_until_that_is_undone(
    site: Site,
) -> None:
    keeper, group = largest(site)
    frame = group[0]
    with opened(site) as workshop:
        done = keep_frames(workshop, [number(frame)], "anna")
    assert done["kept"] == [frame]
    assert verdicts(site)[frame] == (None, "kept: anna said so")
    plan(site)
    plan(site, recompute=True, max_change=2.2)
    assert verdicts(site)[frame] == (None, "kept: anna said so")
    told = site.table("SELECT kind, actor, frame_id FROM decisions")
    assert told == [("keep", "anna", number(frame))]
    with opened(site) as workshop:
        undo_decisions(workshop, int(done["run"][1:]))
    plan(site)
    assert verdicts(site)[frame][0] == keeper
    site.verify()


def test_frames_said_to_be_apart_are_never_called_duplicates_of_each_other(site: Site) -> None:
    keeper, group = largest(site)
    frame = group[0]
    with opened(site) as workshop:
        done = set_apart(workshop, number(frame), number(keeper), "anna")
    assert row_of(site, frame)["duplicate_of"] is None
    plan(site, recompute=True)
    assert row_of(site, frame)["duplicate_of"] != keeper
    assert row_of(site, keeper)["duplicate_of"] != frame
    with opened(site) as workshop:
        assert undo_decisions(workshop, int(done["run"][1:]))["restored"] in (0, 1)
    plan(site, recompute=True)
    assert row_of(site, frame)["duplicate_of"] == keeper


def test_the_owners_keeper_stands_for_those_that_pass_against_it(site: Site) -> None:
    keeper, group = largest(site)
    chosen = group[len(group) // 2]
    before = verdicts(site)
    with opened(site) as workshop:
        done = make_keeper(workshop, number(chosen), "anna", quiet)
    after = members(site)
    assert set(done["followed"]) == set(after[chosen])
    assert set(done["followed"]) | set(done["kept"]) == {keeper, *group} - {chosen}
    assert keeper not in after
    assert row_of(site, chosen)["reason"] == "keeper of its group, said anna"
    said = {
        frame: verdict for frame, verdict in verdicts(site).items() if frame in {keeper, *group}
    }
    plan(site)
    plan(site, recompute=True)
    now = verdicts(site)
    assert {frame: now[frame] for frame in said} == said
    site.verify()
    with opened(site) as workshop:
        undo_decisions(workshop, int(done["run"][1:]))
    assert {frame: verdicts(site)[frame] for frame in said} == {f: before[f] for f in said}
    site.verify()


def test_words_that_make_no_sense_are_refused(site: Site) -> None:
    keeper, group = largest(site)
    with opened(site) as workshop:
        with pytest.raises(NotFoundError, match="no frame f999"):
            keep_frames(workshop, [999], "anna")
        with pytest.raises(ConflictError, match="cannot be duplicates"):
            set_apart(workshop, number(keeper), number(keeper), "anna")
        (site.folder / row_of(site, group[0])["path"]).unlink()
        with workshop.db.write() as connection:
            connection.exec_driver_sql(
                f"UPDATE frames SET presence = 'missing' WHERE id = {number(group[0])}"
            )
        with pytest.raises(ConflictError, match="is missing"):
            make_keeper(workshop, number(group[0]), "anna", quiet)
    assert site.table("SELECT count(*) FROM decisions") == [(0,)]


def test_a_lower_limit_drops_verdicts_at_once_and_a_higher_one_does_not_bring_them_back(
    site: Site,
) -> None:
    scores = {row["id"]: row["change_score"] for row in site.rows() if row["duplicate_of"]}
    limit = sorted(scores.values())[len(scores) // 2]
    states = site.table("SELECT count(*) FROM dedup_checkpoints")
    plan(site, max_change=limit)
    now = verdicts(site)
    above = [frame for frame, score in scores.items() if score > limit]
    assert above
    assert {now[frame] for frame in above} == {
        (None, f"kept: it changed more than the limit of {limit:.2f} allows now")
    }
    assert all(now[f][0] is not None for f, score in scores.items() if score <= limit)
    assert {row_of(site, frame)["change_score"] for frame in above} == {
        scores[frame] for frame in above
    }
    assert site.table("SELECT count(*) FROM dedup_checkpoints") == states
    plan(site)
    assert all(verdicts(site)[frame][0] is None for frame in above)


def test_duplicates_of_a_keeper_that_its_owner_deleted_are_judged_again(site: Site) -> None:
    keeper, group = largest(site)
    (site.folder / row_of(site, keeper)["path"]).unlink()
    site.once()
    rows = {row["id"]: row for row in site.rows()}
    assert rows[keeper]["state"] == "missing"
    heirs = [frame for frame in group if rows[frame]["duplicate_of"] is None]
    assert keeper not in {rows[frame]["duplicate_of"] for frame in group}
    assert len(heirs) < len(group), "one of them stands for the others now"
    site.verify()


def test_another_encoder_begins_afresh_and_reopens_nothing(site: Site) -> None:
    before = verdicts(site)
    with opened(site) as workshop:
        with workshop.db.write() as connection:
            cameras = connection.exec_driver_sql("SELECT id FROM cameras").scalars().all()
            # as if all this had been judged by the maps of another encoder
            epoch = {"space": "another", "after": None}
            meta.put(connection, f"dedup_space:{cameras[0]}", epoch)
        plan_dedup(workshop, quiet, at_once=True)
        assert verdicts(site) == before
        assert site.table("SELECT count(*) FROM dedup_checkpoints") == [(0,)]
        newest = max(map(number, before))
        with workshop.db.read() as connection:
            after = meta.get(connection, f"dedup_space:{cameras[0]}")["after"]
        assert after == newest
    early = datetime(2024, 5, 1, 9, 3)
    fill(site.folder, {f"cam_{early:%Y%m%d%H%M%S}.jpg": yard(50), name(60): yard(51)})
    site.once()
    rows = site.by_path()
    assert rows[f"cam_{early:%Y%m%d%H%M%S}.jpg"]["reason"] == (
        "kept: older than what this encoder has judged"
    )
    assert rows[name(60)]["reason"] == "noise model still learning"
    assert {frame: verdicts(site)[frame] for frame in before} == before


@pytest.mark.parametrize("what", ["deleted", "edited"])
def test_a_keeper_that_changed_between_plan_and_apply(site: Site, what: str) -> None:
    keeper, group = largest(site)
    path = site.folder / row_of(site, keeper)["path"]
    if what == "deleted":
        path.unlink()
    else:
        path.write_bytes(yard(90))
    done = site.cli("dedup", "apply", "--yes", "--json")
    assert done.code == 3, done.out
    told = {entry["frame"]: entry["reason"] for entry in done.json()["entries"]}
    assert set(told) == set(group)
    word = "is gone" if what == "deleted" else "has changed"
    assert set(told.values()) == {f"Its keeper {keeper} {word}; the frame stays where it is."}
    for frame in group:
        assert not row_of(site, frame)["path"].startswith("stillwatch/")


def test_two_plans_can_be_compared(site: Site) -> None:
    first = plan(site)["run"]
    keeper, group = largest(site)
    with opened(site) as workshop:
        keep_frames(workshop, [number(group[0])], "anna")
        make_keeper(workshop, number(group[1]), "anna", quiet)
    second = plan(site)["run"]
    done = site.cli("dedup", "diff", first, second, "--json")
    assert done.code == 0
    found = done.json()
    assert (found["first"], found["second"]) == (first, second)
    assert [entry["frame"] for entry in found["added"]] == [keeper]
    assert {group[0], group[1]} <= {entry["frame"] for entry in found["dropped"]}
    others = {e["frame"]: (e["keeper_before"], e["keeper"]) for e in found["other_keeper"]}
    assert set(others.values()) == {(keeper, group[1])}
    listed = site.cli("dedup", "diff", first, second)
    assert f"dropped\t{group[0]}" in listed.out
    shown = site.cli("dedup", "plan", "--json").json()
    assert all(len(g["keeper_sha256"]) == 64 for g in shown["groups"])
    assert all(len(m["sha256"]) == 64 for g in shown["groups"] for m in g["members"])
