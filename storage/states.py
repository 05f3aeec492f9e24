"""The states of a frame, how they follow from the stored facts, and which may follow which.

A frame stores facts (`presence`, `stage`, `duplicate_kind`, `alarm`, `cluster_id`, `noise`); its
state is computed from them by the database itself, so every row has exactly one and the counts
always add up. The precedence and the meanings stand in the contract, section 2.
"""

from typing import Final

STATES: Final = (
    "pruned",
    "trashed",
    "missing",
    "pending",
    "rejected",
    "exact_duplicate",
    "near_duplicate",
    "novel",
    "assigned",
    "outlier",
    "learning",
)
"""Every state, highest precedence first."""

GONE: Final = frozenset({"missing", "pruned"})
"""States whose file is not on disk: `on_disk` = total - missing - pruned."""

STATE_SQL: Final = (
    "CASE"
    " WHEN presence IN ('pruned', 'trashed', 'missing') THEN presence"
    " WHEN stage IN ('pending', 'rejected') THEN stage"
    " WHEN duplicate_kind = 'exact' THEN 'exact_duplicate'"
    " WHEN duplicate_kind = 'near' THEN 'near_duplicate'"
    " WHEN alarm THEN 'novel'"
    " WHEN cluster_id IS NOT NULL THEN 'assigned'"
    " WHEN noise THEN 'outlier'"
    " ELSE 'learning' END"
)
"""The generated column `frames.state`."""

_SORTED: Final = frozenset(
    {"exact_duplicate", "near_duplicate", "novel", "assigned", "outlier", "learning"}
)

ALLOWED: Final[dict[str, frozenset[str]]] = {
    # Only a file that is there can be read; what is read is sorted or refused.
    "pending": _SORTED | {"rejected", "missing"},
    # A later change of the file, or its end, reopens a refusal.
    "rejected": frozenset({"pending", "missing"}) | _SORTED,
    **{state: (_SORTED - {state}) | {"missing", "trashed"} for state in _SORTED},
    # A missing file may come back as what it was; a pending one that vanished may be seen anew.
    "missing": _SORTED | {"pending", "rejected", "trashed"},
    "trashed": _SORTED | {"missing", "pruned"},
    "pruned": frozenset(),
}
"""For each state, the states that may follow it; enforced by a trigger of the database."""

TRANSITION_TRIGGER_SQL: Final = (
    "CREATE TRIGGER frames_state_transition AFTER UPDATE ON frames"
    " WHEN OLD.state <> NEW.state AND (OLD.state || '>' || NEW.state) NOT IN ("
    + ", ".join(f"'{a}>{b}'" for a in STATES for b in sorted(ALLOWED[a]))
    + ") BEGIN SELECT RAISE(ABORT, 'forbidden state transition'); END"
)
