"""Model files with code in them, and what the loader makes of each.

`python -m tests.tools.malicious_models FOLDER`: every file tries to make FOLDER/canary; the last
line of the output is JSON, file name -> error of the loader, null where it was taken.
"""

import json
import os
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from daemon.encoders.model_file import ModelFileProvider
from storage.errors import EncoderError


def rewritten(source: Path, target: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """A .keras archive with another description."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if name == "config.json":
                described = json.loads(data)
                change(described)
                data = json.dumps(described).encode()
            new.writestr(name, data)


def function(module: str, name: str) -> dict[str, Any]:
    """A reference to any function, as Keras writes them."""
    return {"module": module, "class_name": "function", "config": name, "registered_name": name}


def call_of(module: str, name: str, argument: str) -> dict[str, Any]:
    """A layer whose building calls a function (the way of CVE-2025-1550)."""
    return {
        "module": module,
        "class_name": name,
        "config": {"name": argument, "fn": argument},
        "registered_name": name,
        "build_config": {"input_shape": [None, 4]},
        "name": argument,
        "inbound_nodes": [{"args": [argument], "kwargs": {}}],
    }


class Pickled:
    """Runs a command when it is unpickled."""

    def __init__(self, command: str) -> None:
        self._command = command

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (self._command,)


def make(folder: Path) -> list[Path]:
    """Write the files."""
    import keras

    command = f"touch {folder / 'canary'}"
    inputs = keras.Input((32, 48, 3))
    maps = keras.layers.Conv2D(4, 3, 8)(inputs)
    outputs = keras.layers.GlobalAveragePooling2D(name="vector")(maps)
    good = folder / "good.keras"
    keras.Model(inputs, outputs).save(good)

    def layer(described: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = described["config"]["layers"][-1]
        return found

    def replaced(new: dict[str, Any]) -> Callable[[dict[str, Any]], None]:
        return lambda described: described["config"]["layers"].__setitem__(-1, new)

    changes: dict[str, Callable[[dict[str, Any]], None]] = {
        "system": replaced(call_of("os", "system", command)),
        "eval": replaced(call_of("builtins", "eval", f"__import__('os').system({command!r})")),
        "unlock": replaced(
            call_of("keras.config", "enable_unsafe_deserialization", "enable_unsafe")
        ),
        "whole": lambda described: described.update(call_of("os", "system", command)),
        "activation": lambda described: layer(described)["config"].update(
            activation=function("os", "system")
        ),
        "unknown": lambda described: layer(described).update(
            module="my.package", class_name="Mine", registered_name="Mine"
        ),
        "savedmodel": lambda described: layer(described).update(
            class_name="TFSMLayer", config={"name": "vector", "filepath": str(folder / "saved")}
        ),
    }
    for name, change in changes.items():
        rewritten(good, folder / f"{name}.keras", change)
    code = keras.layers.Lambda(lambda x: (os.system(command), x[:, 0, 0])[1])
    with_code = keras.Sequential([keras.Input((32, 48, 3)), code])
    with_code.save(folder / "lambda.keras")
    with_code.save(folder / "legacy.h5")
    (folder / "legacy.h5").rename(folder / "legacy.keras")
    (folder / "canary").unlink(missing_ok=True)  # building the Lambda ran it
    np.savez(folder / "weights.npz", np.array([Pickled(command)], dtype=object))
    with zipfile.ZipFile(good) as old, zipfile.ZipFile(folder / "pickle.keras", "w") as new:
        for name in ("config.json", "metadata.json"):
            new.writestr(name, old.read(name))
        new.writestr("model.weights.npz", (folder / "weights.npz").read_bytes())
    (folder / "cut.keras").write_bytes(good.read_bytes()[:-300])
    return sorted(folder.glob("*.keras"))


def main() -> None:
    """Make the files and try each of them."""
    folder = Path(sys.argv[1])
    found: dict[str, str | None] = {}
    for path in make(folder):
        try:
            ModelFileProvider().build(f"file:{path}")
            found[path.stem] = None
        except EncoderError as exc:
            found[path.stem] = exc.summary
        if (folder / "canary").exists():
            found[path.stem] = "RAN ITS CODE"
            (folder / "canary").unlink()
    print(json.dumps(found))


if __name__ == "__main__":
    main()
