"""The doctor's check of the caches in the state folder: damaged ones are told, never served."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from daemon.findings import Check

_SNAPSHOT_FOLDER: Final = "neighbours"


def examine_caches(state_dir: Path) -> Iterator[Check]:
    """Whether the index of the novelty judge and the snapshot of `similar` are as written."""
    from storage.index_files import INDEX_NAME, index_damage
    from storage.snapshot_files import snapshot_damage

    damage = index_damage(state_dir / INDEX_NAME)
    if damage is not None:
        yield Check(
            "index",
            "warn",
            f"The index of known pictures is damaged: {damage}. It is not used.",
            "Start the daemon again: it builds the index anew from the database. Damage that comes"
            " back tells of a failing disk.",
        )
    else:
        yield Check("index", "ok", "The index of known pictures is whole, or not built yet.")
    damage = snapshot_damage(state_dir / _SNAPSHOT_FOLDER)
    if damage is not None:
        yield Check(
            "neighbours",
            "warn",
            f"The snapshot of `similar` is damaged: {damage}. `similar` compares all frames.",
            "`stillwatch recluster` builds it anew; so does the next nightly one.",
        )
    else:
        yield Check("neighbours", "ok", "The snapshot of `similar` is whole, or not built yet.")
