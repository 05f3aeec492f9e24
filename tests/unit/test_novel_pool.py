"""New scenes among novel frames: found, whole and pure; noise and known scenes are none."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from daemon.clustering.novel_pool import NewScene, find_new_scenes
from tests.planted import Planted, plant, unit

SETTINGS: dict[str, Any] = {
    "min_cluster_size": 15,
    "min_samples": 1,
    "collapse_distance": 0.0018,
    "usual_limit": 0.1,
}
UNSEEN = (20, 21, 22)


@pytest.fixture(scope="module")
def world() -> Planted:
    """Clusters of which three are unseen; the others stand for what is known."""
    return plant(clusters=23, views=16, noise=60, seed=4)


def known(world: Planted) -> NDArray[np.float32]:
    return world.vectors[(world.labels >= 0) & (world.labels < UNSEEN[0])]


def pool_of(world: Planted, *labels: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    rows = np.isin(world.labels, labels)
    return world.vectors[rows], world.labels[rows]


def look(world: Planted, pool: NDArray[np.float32], **changed: Any) -> list[NewScene]:
    company = known(world)
    return find_new_scenes(pool, company, ones(company), **(SETTINGS | changed))


def ones(company: NDArray[np.float32]) -> NDArray[np.int64]:
    """Every one of them stands for itself."""
    return np.ones(len(company), dtype=np.int64)


def test_unseen_clusters_among_noise_are_found_whole_and_pure(world: Planted) -> None:
    pool, truth = pool_of(world, -1, *UNSEEN)
    found = look(world, pool)
    assert sorted(int(truth[scene.rows][0]) for scene in found) == list(UNSEEN)
    for scene in found:
        label = truth[scene.rows[0]]
        assert set(truth[scene.rows].tolist()) == {label}
        assert len(scene.rows) >= 0.9 * (truth == label).sum()
        assert scene.medoid in scene.rows
        assert set(scene.representative.tolist()) <= set(scene.rows.tolist())
        assert (scene.distances <= 0.0072 + 1e-6).all()
        assert 0 < scene.scale < 0.1
        assert np.isfinite(scene.scales).all()
    sizes = [len(scene.rows) for scene in found]
    assert sizes == sorted(sizes, reverse=True)


def test_a_stray_that_trails_along_is_left_out(world: Planted) -> None:
    pool, _ = pool_of(world, UNSEEN[0])
    stray = unit(np.random.default_rng(8).standard_normal((1, 160))).astype(np.float32)
    for scene in look(world, np.vstack([pool, stray])):
        assert len(pool) not in scene.rows


def test_representatives_count_as_the_frames_they_stand_for() -> None:
    """Fourteen views would be no cluster, and without clusters around them strays are a scene's."""
    world = plant(clusters=20, views=14, noise=0, seed=3)
    known = world.labels < 18
    _, first, weights = np.unique(world.bursts[known], return_index=True, return_counts=True)
    company = world.vectors[known][first]
    new = world.vectors[world.labels == 18]
    strays = unit(np.random.default_rng(8).standard_normal((10, 160))).astype(np.float32)
    pool = np.vstack([new, strays])
    (scene,) = find_new_scenes(pool, company, weights, **SETTINGS)
    assert scene.rows.tolist() == list(range(len(new)))
    assert find_new_scenes(pool, company, ones(company), **SETTINGS) == []


@pytest.mark.parametrize("label", UNSEEN)
def test_a_pool_of_a_single_kind_is_a_scene(world: Planted, label: int) -> None:
    pool, _ = pool_of(world, label)
    (scene,) = look(world, pool)
    assert len(scene.rows) >= 0.9 * len(pool)


def test_noise_is_no_scene(world: Planted) -> None:
    pool, _ = pool_of(world, -1)
    assert len(pool) == 60
    assert look(world, pool) == []


def test_what_only_is_not_known_is_no_scene(world: Planted) -> None:
    """Sixty different things that are all far from the camera's scenes but not near each other."""
    rng = np.random.default_rng(5)
    away = unit(rng.standard_normal(160))
    pool = unit(0.75 * away + unit(rng.standard_normal((60, 160)))).astype(np.float32)
    assert look(world, pool, usual_limit=10.0) != []  # the density alone takes them for one
    assert look(world, pool) == []


def test_known_frames_in_the_pool_are_no_scene(world: Planted) -> None:
    """False alarms of a known cluster lie among its representatives."""
    pool, _ = pool_of(world, 3)
    half = pool[: len(pool) // 2]
    company = np.vstack([known(world), pool[len(pool) // 2 :]])
    assert find_new_scenes(half, company, ones(company), **SETTINGS) == []


def test_the_order_of_the_pool_does_not_matter(world: Planted) -> None:
    pool, _ = pool_of(world, -1, *UNSEEN)
    last = len(pool) - 1
    forward = {frozenset(scene.rows.tolist()) for scene in look(world, pool)}
    backward = {frozenset((last - scene.rows).tolist()) for scene in look(world, pool[::-1].copy())}
    assert forward == backward != set()
