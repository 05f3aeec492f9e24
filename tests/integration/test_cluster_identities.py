"""Who is who from one recluster to the next, and the owner's word in it: the real job path."""

import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from sqlalchemy import select, update

from daemon.clustering.density import DensityClustering
from daemon.clustering.identity import follow_clusters
from daemon.settings import ClusteringSettings, Settings
from storage import clusters
from storage.history import cluster_history
from storage.models import Cluster, Embedding, Frame
from storage.reading import Reader
from tests.planted import plant
from tests.planted_state import Yard, yard

PLANTED = plant(clusters=6, views=30, noise=8)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Yard]:
    with yard(tmp_path / "state") as opened:
        yield opened


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state folder in which all planted frames have arrived and were clustered."""
    state = tmp_path_factory.mktemp("prepared") / "state"
    with yard(state) as opened:
        learn(opened)
    return state


@pytest.fixture
def learned(prepared: Path, tmp_path: Path) -> Iterator[Yard]:
    """A copy of it."""
    shutil.copytree(prepared, tmp_path / "state")
    with yard(tmp_path / "state") as opened:
        yield opened


def learn(place: Yard, rows: slice | NDArray[np.int64] = slice(None)) -> dict[int, int]:
    """Let planted frames arrive and cluster them; returns planted cluster -> cluster id."""
    ids = place.arrive(PLANTED.vectors[rows])
    place.ask("recluster")
    return homes(place, ids, PLANTED.labels[rows])


def homes(place: Yard, ids: list[int], truth: NDArray[np.int64]) -> dict[int, int]:
    """Planted cluster -> the cluster that all its frames are in; frames left as noise aside."""
    places = place.places()
    found: dict[int, int] = {}
    for label in range(6):
        here = {places[i] for i, t in zip(ids, truth.tolist(), strict=True) if t == label}
        (only,) = here - {None}
        assert only is not None
        found[label] = only
    return found


def known_homes(place: Yard) -> dict[int, int]:
    """The same where all planted frames have arrived."""
    return homes(place, list(range(1, len(PLANTED.vectors) + 1)), PLANTED.labels)


def ends_of(place: Yard, cluster: int) -> tuple[int, int]:
    """Two frames of a cluster that are far apart."""
    members = [i for i, c in place.places().items() if c == cluster]
    rows = PLANTED.vectors[np.array(members) - 1]
    similar = rows @ rows.T
    first, last = np.unravel_index(np.argmin(similar), similar.shape)
    return members[int(first)], members[int(last)]


def need_frames(place: Yard, number: int) -> None:
    """Change `clustering.min_cluster_size`, as an owner may: small clusters vanish or return."""
    place.workshop.settings = Settings(clustering=ClusteringSettings(min_cluster_size=number))


def events(place: Yard, cluster: int | None = None) -> list[str]:
    with Reader(place.workshop.state_dir) as reader:
        return [f"{row['cluster']} {row['event']}" for row in cluster_history(reader, cluster)]


@pytest.mark.slow
def test_the_owners_word_outlives_ten_reclusters_with_growing_data(place: Yard) -> None:
    count = len(PLANTED.vectors)
    cuts = np.linspace(count // 2, count, 11).astype(int)
    home = learn(place, slice(0, int(cuts[0])))
    place.ask("cluster_rename", cluster=home[0], name="empty yard")
    place.ask("cluster_pin", cluster=home[1], on=True)
    merged = place.ask("cluster_merge", cluster=home[2], others=[home[3]])
    ends = ends_of(place, home[4])
    split = place.ask("cluster_split", cluster=home[4], frames=list(ends))
    new = int(split["new"][0][1:])
    said = place.places()
    for start, end in pairwise(cuts.tolist()):
        place.arrive(PLANTED.vectors[start:end])
        place.ask("recluster")
        now, listed = place.places(), place.clusters()
        assert listed[f"c{home[0]}"]["name"] == "empty yard"
        assert listed[f"c{home[1]}"]["pinned"]
        assert f"c{home[3]}" not in listed
        assert len(listed) == 6  # one less by the merge, one more by the split
        # frames at the rim may become noise as the data grow; none changes its cluster
        assert {i for i, c in said.items() if c and now[i] not in (c, None)} == set()
        assert now[ends[0]] != now[ends[1]]
    assert {now[ends[0]], now[ends[1]]} == {home[4], new}
    after = np.array([place.places()[i + 1] or -1 for i in range(count)])
    assert set(after[np.isin(PLANTED.labels, [2, 3])]) - {-1} == {home[2]}

    assert place.undo(merged)["restored"] > 0
    place.undo(split)
    place.ask("recluster")
    back = homes(place, list(range(1, count + 1)), PLANTED.labels)
    assert back == home
    assert place.clusters()[f"c{home[0]}"]["name"] == "empty yard"


def test_the_same_again_one_more_and_backwards_change_no_id(place: Yard) -> None:
    home = learn(place, slice(0, -1))
    before = place.places()
    place.ask("recluster")
    assert place.places() == before
    place.arrive(PLANTED.vectors[-1:])
    place.ask("recluster")
    assert {i: c for i, c in place.places().items() if i in before} == before
    assert sorted(place.clusters()) == sorted(f"c{c}" for c in home.values())
    labels = DensityClustering().fit(PLANTED.vectors).labels_
    backwards = DensityClustering().fit(PLANTED.vectors[::-1]).labels_[::-1]
    changes = follow_clusters(labels, np.full(len(labels), -1), backwards)
    assert (changes.born, changes.ended, changes.splits) == ({}, [], [])
    assert [changes.kept.get(label, -1) for label in backwards.tolist()] == labels.tolist()


def test_a_merge_and_a_split_hold_at_once_and_are_undone_at_once(learned: Yard) -> None:
    home = known_homes(learned)
    before = learned.places()
    served: list[object] = []
    learned.workshop.serve = served.append
    merged = learned.ask("cluster_merge", cluster=home[0], others=[home[1], home[2]])
    joined = {home[1]: home[0], home[2]: home[0]}
    assert learned.places() == {i: joined.get(c or -1, c) for i, c in before.items()}
    again = learned.ask("cluster_merge", cluster=home[3], others=[home[0]])
    assert learned.undo(merged, code=1)["error"]["code"] == "conflict"
    learned.undo(again)
    learned.undo(merged)
    assert learned.places() == before
    assert learned.undo(merged)["restored"] == 0
    split = learned.ask("cluster_split", cluster=home[4], frames=list(ends_of(learned, home[4])))
    moved = sum(1 for i, c in learned.places().items() if before[i] != c)
    assert moved == split["frames"] > 0
    learned.undo(split)
    assert learned.places() == before
    assert len(served) == 7  # the second undo of the same run changes nothing, and serves


def test_every_part_of_a_split_can_be_arrived_at(learned: Yard) -> None:
    """A part that got no representative is represented by its face."""
    home = known_homes(learned)
    with learned.db.write() as connection:
        inside = select(Frame.id).where(Frame.cluster_id == home[0])
        connection.execute(update(Embedding).where(Embedding.frame_id.in_(inside)).values(weight=0))
    split = learned.ask("cluster_split", cluster=home[0], frames=list(ends_of(learned, home[0])))
    with learned.db.read() as connection:
        query = (
            select(Frame.cluster_id)
            .join(Embedding, Embedding.frame_id == Frame.id)
            .where(Embedding.weight > 0)
        )
        standing = set(connection.execute(query).scalars())
    assert {home[0], int(split["new"][0][1:])} <= standing


def test_the_newest_word_on_the_same_frames_wins(learned: Yard) -> None:
    home = known_homes(learned)
    split = learned.ask("cluster_split", cluster=home[0], frames=list(ends_of(learned, home[0])))
    new = int(split["new"][0][1:])
    learned.ask("cluster_merge", cluster=home[0], others=[new])
    learned.ask("recluster")
    assert homes(learned, sorted(learned.places()), PLANTED.labels) == home
    first, last = ends_of(learned, home[0])
    learned.ask("cluster_split", cluster=home[0], frames=[first, last])
    learned.ask("recluster")
    assert learned.places()[first] != learned.places()[last]


def test_a_cluster_that_comes_back_has_its_old_id_and_name(place: Yard) -> None:
    small = np.flatnonzero((PLANTED.labels != 5) | (PLANTED.bursts % 30 < 9))
    home = learn(place, small)
    place.ask("cluster_rename", cluster=home[5], name="fox")
    need_frames(place, 30)
    place.ask("recluster")
    assert f"c{home[5]}" not in place.clusters()
    need_frames(place, 15)
    place.ask("recluster")
    assert place.clusters()[f"c{home[5]}"]["name"] == "fox"
    told = [event.split()[1] for event in events(place, home[5])]
    # few frames far from all others count as noise, or as the fringe of the nearest cluster
    assert told in (
        ["born", "renamed", "retired", "returned"],
        ["born", "renamed", "merged", "returned"],
    )
    place.ask("recluster")
    assert len(events(place, home[5])) == 4


def test_a_pinned_cluster_stays_when_it_is_empty(place: Yard) -> None:
    small = np.flatnonzero((PLANTED.labels != 5) | (PLANTED.bursts % 30 < 9))
    home = learn(place, small)
    place.ask("cluster_rename", cluster=home[5], name="fox")
    pinned = place.ask("cluster_pin", cluster=home[5], on=True)
    need_frames(place, 30)
    for _ in range(2):
        place.ask("recluster")
        row = place.clusters()[f"c{home[5]}"]
        assert (row["name"], row["size"], row["pinned"]) == ("fox", 0, True)
    need_frames(place, 15)
    place.ask("recluster")
    assert place.clusters()[f"c{home[5]}"]["size"] > 0
    assert events(place, home[5])[-2:] == [f"c{home[5]} emptied", f"c{home[5]} returned"]
    place.undo(pinned)
    need_frames(place, 30)
    place.ask("recluster")
    assert f"c{home[5]}" not in place.clusters()


def test_another_encoder_keeps_ids_names_and_what_it_cannot_place(learned: Yard) -> None:
    home = known_homes(learned)
    learned.ask("cluster_rename", cluster=home[1], name="gate")
    before = learned.places()
    turn = np.linalg.qr(np.random.default_rng(3).standard_normal((160, 160)))[0]
    space = learned.serve_space("other", 160)
    unread = [i for i, c in before.items() if c == home[2]]
    seen = [i for i in before if i not in unread]
    learned.embed(seen, (PLANTED.vectors @ turn)[np.array(seen) - 1], space)
    learned.ask("recluster")
    # what was noise may find a cluster in the other space
    assert {i: c for i, c in learned.places().items() if before[i]} == {
        i: c for i, c in before.items() if c
    }
    with learned.db.read() as connection:
        spaces = set(connection.execute(select(Cluster.space_id)).scalars())
        gate = clusters.find(connection, home[1])
    assert (spaces, gate.name, gate.state) == ({space}, "gate", "active")
    assert all(not event.endswith("born") for event in events(learned)[7:])


def test_an_accepted_frame_keeps_its_cluster_alive(learned: Yard) -> None:
    stray = int(np.flatnonzero(PLANTED.labels < 0)[0]) + 1
    with learned.db.write() as connection:
        values = {"alarm": True, "novelty": "scene", "noise": False}
        connection.execute(update(Frame).where(Frame.id == stray).values(**values))
    own = learned.ask("novel_accept", frames=[stray])["cluster"]
    merged = None
    for _ in range(2):
        learned.ask("recluster")
        assert learned.clusters()[own]["size"] == 1
    assert [e.split()[1] for e in events(learned, int(own[1:]))] == ["born"]
    other = int(min(set(learned.clusters()) - {own})[1:])
    merged = learned.ask("cluster_merge", cluster=other, others=[int(own[1:])])
    learned.ask("recluster")
    assert learned.places()[stray] == other
    assert own not in learned.clusters()
    learned.undo(merged)
    assert f"c{learned.places()[stray]}" == own


def test_ignored_frames_do_not_alarm_until_that_is_undone(learned: Yard) -> None:
    home = known_homes(learned)
    frame = next(i for i, c in learned.places().items() if c == home[0])

    def state() -> str:
        with learned.db.read() as connection:
            return str(connection.execute(select(Frame.state).where(Frame.id == frame)).scalar())

    with learned.db.write() as connection:
        values = {"alarm": True, "novelty": "place"}
        connection.execute(update(Frame).where(Frame.id == frame).values(**values))
    assert state() == "novel"
    ignored = learned.ask("cluster_ignore", cluster=home[0], on=True)
    assert (ignored["silenced"], state()) == (1, "assigned")
    with learned.db.read() as connection:
        assert clusters.ignored_ids(connection) == {home[0]}
    learned.undo(ignored)
    assert state() == "novel"
    # accepting a new place leaves the frame in its cluster
    learned.ask("novel_accept", frames=[frame])
    assert (state(), learned.places()[frame]) == ("assigned", home[0])


def test_what_cannot_be_is_refused_in_words(learned: Yard) -> None:
    home = known_homes(learned)
    first, last = ends_of(learned, home[0])
    foreign = ends_of(learned, home[1])[0]
    ask = learned.ask
    one, two = home[0], home[1]
    for kind, code, arguments in (
        ("cluster_merge", 2, {"cluster": one, "others": [one]}),
        ("cluster_merge", 2, {"cluster": one, "others": []}),
        ("cluster_merge", 1, {"cluster": one, "others": [99]}),
        ("cluster_split", 2, {"cluster": one, "frames": [first]}),
        ("cluster_split", 2, {"cluster": one, "frames": [first, first]}),
        ("cluster_split", 2, {"cluster": one, "frames": [first, foreign]}),
        ("cluster_pin", 1, {"cluster": 99, "on": True}),
    ):
        assert "summary" in ask(kind, code, **arguments)["error"]
    named = ask("cluster_rename", cluster=one, name="gate")
    assert f"c{one}" in ask("cluster_rename", 2, cluster=two, name="gate")["error"]["summary"]
    ask("cluster_rename", cluster=one, name="door")
    assert learned.undo(named, code=1)["error"]["code"] == "conflict"
    merged = ask("cluster_merge", cluster=one, others=[two])
    for kind, arguments in (
        ("cluster_pin", {"cluster": two, "on": True}),
        ("cluster_merge", {"cluster": home[2], "others": [two]}),
        ("cluster_split", {"cluster": two, "frames": [first, last]}),
    ):
        assert f"merged into c{one}" in ask(kind, 1, **arguments)["error"]["summary"]
    learned.undo(merged)


def test_an_undone_name_that_went_elsewhere_is_not_taken(learned: Yard) -> None:
    home = known_homes(learned)
    learned.ask("cluster_rename", cluster=home[0], name="gate")
    renamed = learned.ask("cluster_rename", cluster=home[0], name="door")
    learned.ask("cluster_rename", cluster=home[1], name="gate")
    assert learned.undo(renamed, code=1)["error"]["code"] == "conflict"
    assert learned.clusters()[f"c{home[0]}"]["name"] == "door"


def test_a_dismissed_frame_does_not_stand_for_the_cluster_it_goes_to(learned: Yard) -> None:
    stray = int(np.flatnonzero(PLANTED.labels < 0)[0]) + 1

    def weight() -> int:
        query = select(Embedding.weight).where(Embedding.frame_id == stray)
        with learned.db.read() as connection:
            return int(connection.execute(query).scalar_one())

    with learned.db.write() as connection:
        values = {"alarm": True, "novelty": "scene", "noise": False}
        connection.execute(update(Frame).where(Frame.id == stray).values(**values))
        connection.execute(update(Embedding).where(Embedding.frame_id == stray).values(weight=1))
    dismissed = learned.ask("novel_dismiss", frames=[stray])
    assert (f"c{learned.places()[stray]}", weight()) == (dismissed["cluster"], 0)
    learned.undo(dismissed)
    assert (learned.places()[stray], weight()) == (None, 1)
