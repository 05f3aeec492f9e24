"""The states of a frame, walked against a real database."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, select, text, update
from sqlalchemy.exc import IntegrityError

from storage import frames
from storage.clusters import create_cluster
from storage.models import Frame
from storage.states import ALLOWED, GONE, STATES
from tests.ingest_tools import World, make_world

BASE: dict[str, Any] = {
    "presence": "here",
    "stage": "embedded",
    "duplicate_kind": None,
    "duplicate_of": None,
    "alarm": False,
    "cluster_id": None,
    "noise": False,
}
KEEPER = 1
"""Row and cluster id that duplicates and members point at."""
FACTS: dict[str, dict[str, Any]] = {
    "pruned": BASE | {"presence": "pruned"},
    "trashed": BASE | {"presence": "trashed"},
    "missing": BASE | {"presence": "missing"},
    "pending": BASE | {"stage": "pending"},
    "rejected": BASE | {"stage": "rejected"},
    "exact_duplicate": BASE | {"duplicate_kind": "exact", "duplicate_of": KEEPER},
    "near_duplicate": BASE | {"duplicate_kind": "near", "duplicate_of": KEEPER},
    "novel": BASE | {"alarm": True},
    "assigned": BASE | {"cluster_id": KEEPER},
    "outlier": BASE | {"noise": True},
    "learning": BASE,
}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = make_world(tmp_path)
    with made.db.write() as connection:
        assert frames.new_row(connection, made.camera_id, b"keeper", 1.0) == KEEPER
        cluster = create_cluster(connection, space_id=made.space_id, now=1.0, run_id=None)
        assert cluster == KEEPER
    yield made
    made.db.close()


def add(connection: Any, world: World, name: str, facts: dict[str, Any]) -> int:
    values = {"camera_id": world.camera_id, "path": name.encode(), "original_path": b"o"}
    statement = insert(Frame).values(**values, arrived_at=1.0, **facts)
    return int(connection.execute(statement.returning(Frame.id)).scalar_one())


def test_the_walk_knows_every_state() -> None:
    assert set(FACTS) == set(STATES) == set(ALLOWED)
    assert len(STATES) == len(set(STATES)) == 11


def test_every_pair_of_states_passes_or_is_refused_as_the_table_says(world: World) -> None:
    wrong: list[str] = []
    for old, new in itertools.permutations(STATES, 2):
        with world.db.write() as connection:
            frame_id = add(connection, world, f"{old}-{new}", FACTS[old])
        passed = True
        try:
            with world.db.write() as connection:
                statement = update(Frame).where(Frame.id == frame_id).values(**FACTS[new])
                connection.execute(statement)
        except IntegrityError as exc:
            assert "forbidden state transition" in str(exc)
            passed = False
        with world.db.read() as connection:
            state = connection.execute(select(Frame.state).where(Frame.id == frame_id)).scalar()
        if passed != (new in ALLOWED[old]) or state != (new if passed else old):
            wrong.append(f"{old} > {new}: {'passed' if passed else 'refused'}, now {state}")
    assert wrong == []


def test_what_the_contract_says_is_in_the_table() -> None:
    assert ALLOWED["pruned"] == frozenset()  # final
    assert {"pruned", "missing", "assigned"} <= ALLOWED["trashed"]  # final, lost or restored
    assert {"learning", "rejected", "missing"} <= ALLOWED["pending"]
    assert {"assigned", "novel", "outlier", "near_duplicate"} <= ALLOWED["learning"]
    assert "pruned" not in ALLOWED["assigned"]  # only what is in the trash is pruned
    assert "trashed" not in ALLOWED["pending"]
    assert {"pending", "missing"} <= ALLOWED["rejected"]  # a later change reopens it
    assert all("pending" not in ALLOWED[state] for state in ("assigned", "novel", "outlier"))


def expected_state(facts: dict[str, Any]) -> str:
    """The precedence of the contract, read from its list."""
    holds = {
        "pruned": facts["presence"] == "pruned",
        "trashed": facts["presence"] == "trashed",
        "missing": facts["presence"] == "missing",
        "pending": facts["stage"] == "pending",
        "rejected": facts["stage"] == "rejected",
        "exact_duplicate": facts["duplicate_kind"] == "exact",
        "near_duplicate": facts["duplicate_kind"] == "near",
        "novel": facts["alarm"],
        "assigned": facts["cluster_id"] is not None,
        "outlier": facts["noise"],
        "learning": True,
    }
    order = (
        "pruned > trashed > missing > pending > rejected > exact_duplicate > near_duplicate"
        " > novel > assigned > outlier > learning"
    )
    return next(state for state in order.split(" > ") if holds[state])


def test_every_mix_of_facts_has_one_state_and_the_counts_add_up(world: World) -> None:
    mixes = itertools.product(
        ("here", "missing", "trashed", "pruned"),
        ("pending", "rejected", "embedded"),
        (None, "exact", "near"),
        (False, True),
        (None, KEEPER),
        (False, True),
    )
    expected: dict[str, int] = {"pending": 1}  # the keeper
    with world.db.write() as connection:
        for number, (presence, stage, kind, alarm, cluster, noise) in enumerate(mixes):
            facts = {
                "presence": presence,
                "stage": stage,
                "duplicate_kind": kind,
                "duplicate_of": None if kind is None else KEEPER,
                "alarm": alarm,
                "cluster_id": cluster,
                "noise": noise,
            }
            frame_id = add(connection, world, f"{number}", facts)
            state = connection.execute(select(Frame.state).where(Frame.id == frame_id)).scalar()
            assert state == expected_state(facts)
            expected[state] = expected.get(state, 0) + 1
    with world.db.read() as connection:
        counts = frames.count_states(connection)
        total = connection.execute(text("SELECT count(*) FROM frames")).scalar_one()
        gone = connection.execute(
            text("SELECT count(*) FROM frames WHERE presence IN ('missing', 'pruned')")
        ).scalar_one()
    assert counts == expected
    assert sum(counts.values()) == total == 289
    assert sum(counts[state] for state in GONE) == gone


def test_half_a_duplicate_and_a_duplicate_of_itself_are_refused(world: World) -> None:
    for wrong in (
        {"duplicate_kind": "near", "duplicate_of": None},
        {"duplicate_kind": None, "duplicate_of": KEEPER},
    ):
        refused = pytest.raises(IntegrityError, match="duplicate_complete")
        with refused, world.db.write() as connection:
            add(connection, world, "x", BASE | wrong)
    refused = pytest.raises(IntegrityError, match="duplicate_not_self")
    with refused, world.db.write() as connection:
        frames.update_frame(
            connection, KEEPER, duplicate_kind="exact", duplicate_of=KEEPER, stage="embedded"
        )


def test_one_living_row_a_path(world: World) -> None:
    with world.db.write() as connection:
        add(connection, world, "a", FACTS["missing"])
        add(connection, world, "a", FACTS["missing"])
        add(connection, world, "a", FACTS["pending"])
    with pytest.raises(IntegrityError, match="UNIQUE"), world.db.write() as connection:
        add(connection, world, "a", FACTS["pending"])
