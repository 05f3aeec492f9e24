"""The process that finds an archive's copies: `python -m daemon.jobs.archive_child RESULT`.

Reads fingerprints and vectors from a read-only view of the database and writes the copies as JSON.
It writes nothing else.
"""

import json
import sys
from pathlib import Path

import numpy as np

from daemon.dedup.archive import find_copies
from daemon.jobs.archive_pictures import load_pictures
from daemon.jobs.child import read_parameters, report
from storage.engine import Database


def main() -> None:
    """Entry point of the process."""
    parameters = read_parameters()
    db = Database(Path(parameters["state_dir"]), read_only=True)
    try:
        with db.read() as connection:
            pictures = load_pictures(connection, parameters["space_id"], parameters["ranked"])
    finally:
        db.close()
    copies = find_copies(
        pictures,
        stay=np.isin(pictures.ids, parameters["stay"]),
        apart=frozenset(frozenset(pair) for pair in parameters["apart"]),
        progress=lambda done: report("comparing pictures", done, len(pictures.ids)),
    )
    answer = [[copy.frame_id, copy.keeper_id, copy.reason] for copy in copies]
    Path(sys.argv[1]).write_text(json.dumps(answer))


if __name__ == "__main__":
    main()
