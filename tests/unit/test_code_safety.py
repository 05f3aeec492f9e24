"""What the program's own code never does, read from its syntax: nothing from a file is ever run."""

import ast
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted(
    path for room in ("cli", "daemon", "storage") for path in (ROOT / room).rglob("*.py")
)
RUNNING = {"eval", "exec", "compile", "__import__"}
PICKLING = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
PICKLING |= {"yaml", "ruamel", "torch", "jsonpickle", "code", "codeop"}
RESTRICTED_READER = "daemon/encoders/weights_reader.py"
DECODER = "daemon/ingest/picture.py"
MODEL_LOADER = "daemon/encoders/model_file.py"


Node = TypeVar("Node", bound=ast.AST)


@functools.cache
def trees() -> list[tuple[str, list[ast.AST]]]:
    """Every source file and its syntax."""
    return [
        (path.relative_to(ROOT).as_posix(), list(ast.walk(ast.parse(path.read_bytes()))))
        for path in SOURCES
    ]


def found(kind: type[Node]) -> Iterator[tuple[str, Node]]:
    """Every node of a kind, with its file."""
    for path, nodes in trees():
        for node in nodes:
            if isinstance(node, kind):
                yield path, node


def dotted(node: ast.AST) -> str:
    """`np.load` of that expression; empty for what is no plain name."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def calls() -> Iterator[tuple[str, ast.Call, str]]:
    for path, call in found(ast.Call):
        yield path, call, dotted(call.func)


def test_there_is_something_to_read() -> None:
    assert len(SOURCES) > 150
    assert any(name == "np.load" for _, _, name in calls())


def test_numpy_never_unpickles() -> None:
    for path, call, name in calls():
        for keyword in call.keywords:
            if keyword.arg == "allow_pickle":
                assert ast.unparse(keyword.value) == "False", f"{path}:{call.lineno}"
            assert keyword.arg is not None or name not in ("np.load", "numpy.load"), path


def test_pickles_and_their_like_are_imported_by_the_restricted_reader_alone() -> None:
    for path, node in (*found(ast.Import), *found(ast.ImportFrom)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        bad = {name.partition(".")[0] for name in names} & PICKLING
        assert not bad or (path, bad) == (RESTRICTED_READER, {"pickle"}), (path, bad)
    for path, _call, name in calls():
        assert name not in ("pickle.load", "pickle.loads", "pickle.Unpickler"), path


def test_nothing_is_evaluated_and_no_shell_is_asked() -> None:
    for path, call, name in calls():
        assert name not in RUNNING | {"os.system", "os.popen", "subprocess.getoutput"}, path
        assert all(keyword.arg != "shell" for keyword in call.keywords), path


def test_pictures_are_decoded_in_one_place_and_from_memory() -> None:
    for path, call, name in calls():
        assert not name.endswith(("imread", "imreadmulti", "VideoCapture")), path
        if name.endswith("Image.open"):
            assert path == DECODER
            assert ast.unparse(call.args[0]) == "io.BytesIO(data)", f"{path}:{call.lineno}"
            assert "formats" in [keyword.arg for keyword in call.keywords], f"{path}:{call.lineno}"


def test_networks_are_loaded_in_safe_mode() -> None:
    loads = [(path, call) for path, call, name in calls() if name.endswith("load_model")]
    assert [path for path, _ in loads] == [MODEL_LOADER]
    (call,) = (call for _, call in loads)
    assert ("safe_mode", "True") in [(k.arg, ast.unparse(k.value)) for k in call.keywords]
    for path in SOURCES:
        text = path.read_text()
        for word in ("enable_unsafe_deserialization", "custom_objects", "TFSMLayer"):
            assert word not in text, path


@pytest.mark.parametrize("name", ["ctypes.CDLL", "ctypes.cdll.LoadLibrary"])
def test_no_library_is_loaded_but_the_one_that_is_there(name: str) -> None:
    for path, call, called in calls():
        if called == name:
            assert ast.unparse(call.args[0]) == "None", f"{path}:{call.lineno}"
