"""The process that makes another encoder ready: `python -m daemon.jobs.prepare_encoder_child OUT`.

Converts the network if need be (which again is a process of its own: TensorFlow) and tells the
daemon which space its vectors are of.
"""

import json
import sys
from pathlib import Path

from daemon.encoders import registry
from daemon.jobs.child import read_parameters, report


def main() -> None:
    """Entry point of the process."""
    parameters = read_parameters()
    encoder_id, cache = str(parameters["encoder"]), Path(parameters["cache"])
    report("preparing the encoder", 0, 0)
    registry.prepare(encoder_id, cache, lambda _stage, _done, _total: None)
    encoder = registry.load(encoder_id, cache, threads=1)
    facts = {"name": encoder.space, "weights_sha256": encoder.weights_sha256, "dim": encoder.dim}
    encoder.close()
    Path(sys.argv[1]).write_text(json.dumps(facts))


if __name__ == "__main__":
    main()
