"""The parts of a change of the encoder: what two spaces keep apart, exchange, refuse and retry."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import select

from cli.context import Context
from cli.picture_vectors import encode_file
from daemon.ingest.pipeline import Pipeline
from daemon.jobs.child import JobFailedError
from daemon.jobs.encoder_decisions import forget_space, undo_switch
from daemon.jobs.encoder_upkeep import WAIT_SECONDS, EncoderUpkeep
from daemon.jobs.workshop import Workshop
from daemon.messages import DecodedImage, Encoding, RefusedFile
from daemon.serving_encoder import ServingEncoder
from daemon.settings import EncoderSettings, Settings
from storage import embeddings, frames, known_files, meta, runs, spaces
from storage.errors import ConflictError, EncoderMismatchError
from storage.models import Embedding, Event, Signature
from storage.spaces import DECLINED_KEY, SpaceRow, Switch
from tests.ingest_tools import DIM, World, encoded, make_world, scene, wait_until

FLOAT32 = "efficientnet_lite0"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = make_world(tmp_path)
    yield made
    made.db.close()


def another_space(world: World, name: str = "other@1", encoder: str = "other") -> SpaceRow:
    with world.db.write() as connection:
        space_id = embeddings.ensure_space(
            connection, name=name, encoder=encoder, weights_sha256="1", dim=DIM, now=1.0
        )
        return spaces.space_of(connection, space_id)


def serve(world: World, space_id: int) -> None:
    with world.db.write() as connection:
        spaces.serve_space(connection, spaces.space_of(connection, space_id))


def workshop_of(world: World, encoder: str = FLOAT32) -> Workshop:
    settings = Settings(encoder=EncoderSettings(id=encoder))
    return Workshop(state_dir=world.state_dir, db=world.db, settings=settings)


def give_vectors(world: World, space_id: int, names: list[str]) -> list[int]:
    """Recorded frames with a vector and a signature in one space; their ids."""
    for name in names:
        world.put(name, name.encode())
    world.know(*names)
    with world.db.write() as connection:
        ids = [int(row.id) for row in world_rows(world, names)]
        for frame_id in ids:
            frames.store_vector(connection, frame_id, space_id, bytes(2 * DIM), (b"g", None, None))
    return ids


def world_rows(world: World, names: list[str]) -> list[known_files.KnownFile]:
    with world.db.read() as connection:
        return known_files.known_at(connection, world.camera_id, [name.encode() for name in names])


class Network:
    """Gives every picture the same vector."""

    def encode(self, batch: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> Encoding:
        vectors = np.full((len(batch), DIM), 0.5, dtype=np.float32)
        return Encoding(space="test", vectors=vectors, tiles=None)


def sized(world: World, name: str, size: tuple[int, int]) -> DecodedImage:
    world.put(name, name.encode())
    image = world.frame(name).image
    return DecodedImage(
        file=image.file,
        sha256=image.sha256,
        format="JPEG",
        width=64,
        height=48,
        pixels=np.zeros((*size, 3), dtype=np.uint8),
        grey=image.grey,
    )


def test_pictures_of_the_old_size_are_decoded_again_and_never_reach_the_new_network(
    world: World,
) -> None:
    new = another_space(world)
    again: list[RefusedFile] = []
    pipeline = Pipeline(
        Network(), world.space_id, world.recorder(), 8, again.append, lambda _count: None
    )
    old, fresh = sized(world, "old.jpg", (4, 4)), sized(world, "new.jpg", (6, 6))
    with pipeline.between_batches:  # the change comes while the first picture is in the queue
        pipeline.start()
        pipeline.deliver(old)
        pipeline.set_encoder(Network(), new.id, (6, 6))
    pipeline.deliver(fresh)
    wait_until(lambda: pipeline.pending == 0, "both are dealt with")
    pipeline.close()
    assert pipeline.failed is None
    assert [item.file for item in again] == [old.file]
    assert world.states() == {"new.jpg": "learning"}
    with world.db.read() as connection:
        assert list(connection.execute(select(Embedding.space_id)).scalars()) == [new.id]


def test_a_frame_that_comes_back_gets_a_vector_of_the_space_that_serves(world: World) -> None:
    new = another_space(world)
    record = world.recorder().record
    world.put("a.jpg", b"content")
    record(world.space_id, [world.frame("a.jpg")])
    (row,) = world_rows(world, ["a.jpg"])
    with world.db.write() as connection:
        frames.mark_missing(connection, [row.id])
    (world.folder / "a.jpg").unlink()
    world.put("b.jpg", b"content")
    record(new.id, [world.frame("b.jpg")])
    with world.db.read() as connection:
        assert spaces.lacking(connection, new.id).tolist() == []
        held = select(Embedding.space_id).where(Embedding.frame_id == row.id)
        assert set(connection.execute(held).scalars()) == {world.space_id, new.id}


def test_what_a_space_lacks_and_why(world: World) -> None:
    new = another_space(world)
    first, second = give_vectors(world, world.space_id, ["a.jpg", "b.jpg"])
    with world.db.write() as connection:
        assert spaces.lacking(connection, world.space_id).tolist() == []
        assert spaces.lacking(connection, new.id).tolist() == [first, second]
        for why in ("its file is gone", "its file is gone", "no permission to read it"):
            spaces.note_gaps(connection, new.id, {first: why}, 5.0)
        told = select(Event.id).where(Event.kind == spaces.NO_VECTOR)
        assert len(connection.execute(told).all()) == 2
        assert spaces.known_gaps(connection, new.id) == {first: "no permission to read it"}
        assert spaces.known_gaps(connection, world.space_id) == {}
        frames.mark_missing(connection, [first])
        assert spaces.lacking(connection, new.id).tolist() == [second]


def test_forgetting_touches_one_space_only_and_never_one_in_use(world: World) -> None:
    new = another_space(world)
    names = [f"{number}.jpg" for number in range(5)]
    ids = give_vectors(world, world.space_id, names)
    with world.db.write() as connection:
        for frame_id in ids:
            frames.store_vector(connection, frame_id, new.id, bytes(2 * DIM), (b"g", None, None))
        old = spaces.space_of(connection, world.space_id)
        spaces.store_switch(connection, Switch(encoder="other", started_at=1.0, space_id=new.id))
    serve(world, world.space_id)
    workshop = workshop_of(world)
    for name in (old.name, new.name):
        with pytest.raises(ConflictError):
            forget_space(workshop, name, lambda *_: None)
    with world.db.write() as connection:
        spaces.store_switch(connection, None)
    told: list[tuple[int, int]] = []
    done = forget_space(workshop, new.name, lambda _stage, n, total: told.append((n, total)))
    assert done == {"space": new.name, "frames": 5}
    assert told[-1] == (5, 5)
    with world.db.read() as connection:
        assert spaces.count_vectors(connection, new.id) == 0
        assert spaces.count_vectors(connection, old.id) == 5
        left = connection.execute(select(Signature.space_id)).scalars()
        assert list(left) == [old.id] * 5


def test_a_failed_change_is_tried_again_later_and_the_old_space_serves_on(world: World) -> None:
    serve(world, world.space_id)
    with world.db.write() as connection:
        spaces.store_switch(connection, Switch(encoder="no_such_network", started_at=1.0))
    now = 100.0
    upkeep = EncoderUpkeep(workshop_of(world), monotonic=lambda: now)
    with pytest.raises(JobFailedError, match="no_such_network"):
        upkeep.work()
    assert upkeep.work() is False  # nothing is started before its time
    now += WAIT_SECONDS
    with pytest.raises(JobFailedError):
        upkeep.work()
    now += WAIT_SECONDS
    assert upkeep.work() is False  # the second wait is longer
    with world.db.read() as connection:
        serving = spaces.serving_space(connection)
    assert serving is not None and serving.id == world.space_id


def test_gaps_are_looked_for_whenever_another_space_serves(world: World) -> None:
    give_vectors(world, world.space_id, ["a.jpg"])
    serve(world, world.space_id)
    upkeep = EncoderUpkeep(workshop_of(world))
    assert upkeep.work() is False
    serve(world, another_space(world).id)
    with pytest.raises(JobFailedError):  # this network is not there, but it is tried
        upkeep.work()


def test_a_change_that_was_followed_by_another_cannot_be_undone(world: World) -> None:
    second, third = another_space(world), another_space(world, "third@1", "third")
    serve(world, third.id)
    sides = {"from": {"space": world.space_id}, "to": {"space": second.id, "encoder": "other"}}
    with world.db.write() as connection:
        run_id = runs.create_run(connection, "encoder", [], now=1.0, parameters=sides)
        runs.set_state(connection, run_id, "applied")
    with pytest.raises(ConflictError, match="changed again"):
        undo_switch(workshop_of(world), run_id, lambda *_: None)
    with world.db.read() as connection:
        assert spaces.load_switch(connection) is None


def test_undoing_a_change_that_is_not_complete_ends_it(world: World) -> None:
    serve(world, world.space_id)
    new = another_space(world)
    sides = {
        "from": {"space": world.space_id, "encoder": FLOAT32},
        "to": {"space": new.id, "encoder": "other"},
    }
    with world.db.write() as connection:
        run_id = runs.create_run(connection, "encoder", [], now=1.0, parameters=sides)
        way = Switch(encoder="other", started_at=1.0, space_id=new.id, run_id=run_id)
        spaces.store_switch(connection, way)
    undo_switch(workshop_of(world), run_id, lambda *_: None)
    with world.db.read() as connection:
        assert spaces.load_switch(connection) is None
        assert meta.get(connection, DECLINED_KEY) == {"encoder": "other", "run": run_id}
        assert runs.get_run(connection, run_id)["state"] == "undone"


def test_an_encoder_with_other_weights_is_refused(world: World) -> None:
    old = another_space(world, f"{FLOAT32}@000000000000", FLOAT32)
    serve(world, old.id)
    with pytest.raises(EncoderMismatchError) as refused:
        ServingEncoder(world.db, EncoderSettings(id=FLOAT32), lambda: 1.0, lambda _line: None)
    assert refused.value.exit_code == 13
    world.put("a.jpg", encoded(scene()))
    with pytest.raises(EncoderMismatchError, match="000000000000"):
        encode_file(Context(), world.folder / "a.jpg", space=old.name, encoder_id=FLOAT32)
