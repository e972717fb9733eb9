"""The house: which room imports which, and where the method's functions come from."""

import ast
import importlib
import importlib.util
import inspect
import pkgutil
import re
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import bitemporal
from bitemporal import method

PACKAGE = Path(bitemporal.__file__).parent
ROOT = Path(__file__).resolve().parents[1]

LEVELS = (
    {"errors", "tables", "remedies", "texts", "_torchvision"},
    {"files", "own_networks", "workers", "_lazy"},
    {"reading"},
    {"outputs"},
    {"imagery"},
    {"pairs"},
    {"synthetic", "datasets"},
    {"losses", "metrics"},
    {"models"},
    {"method"},
    {"inference", "interop"},
    {"scenes"},
    {"evaluation"},
    {"run"},
    {"report"},
    {"cli"},
    {"__main__"},
)
"""Rooms from the lowest to the highest, as docs/architecture.md has them: a room imports lower ones, and itself."""


def module_name(path: Path) -> str:
    parts = ("bitemporal", *path.relative_to(PACKAGE).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in PACKAGE.rglob("*.py")}


def imports(path: Path) -> set[str]:
    """Modules of the package that a file imports anywhere, in functions and for type checkers too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            for alias in node.names:  # of a module or of something in it
                name = f"{node.module}.{alias.name}"
                found.add(name if name in MODULES else str(node.module))
    return {name for name in found if name in MODULES}


def room(module: str) -> str:
    """First name below the package; the package itself is the public face above all rooms."""
    return module.split(".")[1] if "." in module else ""


def level(name: str) -> int:
    (found,) = (number for number, rooms in enumerate(LEVELS) if name in rooms)
    return found


def test_every_room_has_a_level():
    assert {room(module) for module in MODULES} - {""} == set().union(*LEVELS)


def test_rooms_import_lower_rooms_only():
    upwards = [
        f"{module} imports {other}"
        for module, path in MODULES.items()
        for other in imports(path)
        if room(module) and room(other) and room(other) != room(module) and level(room(other)) >= level(room(module))
    ]
    assert not upwards


def test_no_module_imports_itself_in_a_circle():
    """The package's own ``__init__`` holds the version, which every room may read."""
    graph = {
        name: {other for other in imports(path) if other != "bitemporal"}
        for name, path in MODULES.items()
        if room(name)
    }
    for name in graph:  # importing a module runs the ``__init__`` of its package
        graph[name] = graph[name] - {name}
    assert list(TopologicalSorter(graph).static_order())  # raises CycleError


def test_the_picture_is_drawn_from_these_imports():
    spec = importlib.util.spec_from_file_location("draw_architecture", ROOT / "docs" / "draw_architecture.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    between = {
        (room(module), room(other)) for module, path in MODULES.items() for other in imports(path) if room(module)
    }
    expected = {
        name: {other for one, other in between if one == name and other not in ("", name)}
        for name in script.room_imports()
    }
    assert script.room_imports() == expected
    assert script.description(expected) in script.PICTURE.read_text(encoding="utf-8")


def test_the_page_names_every_room():
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    for name in set().union(*LEVELS):
        assert f"`{name}" in page or f"  {name}" in page, name


def public_functions():
    for info in pkgutil.iter_modules(method.__path__):
        module = importlib.import_module(f"bitemporal.method.{info.name}")
        for name, function in vars(module).items():
            own = getattr(function, "__module__", "") == module.__name__
            if own and not name.startswith("_") and (inspect.isfunction(function) or inspect.isclass(function)):
                yield f"{info.name}.{name}", function


PUBLIC = dict(public_functions())


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_what_is_public_in_the_method_names_its_source(name):
    text = inspect.getdoc(PUBLIC[name]) or ""
    assert re.search(r"\bpaper\b.{0,60}\bsection|\bsection.{0,60}\bpaper\b", text, flags=re.DOTALL), name


def test_files_and_names_on_the_page_exist():
    page = (PACKAGE.parents[1] / "docs" / "architecture.md").read_text(encoding="utf-8")
    code = "\n".join(path.read_text(encoding="utf-8") for path in MODULES.values())
    for word in set(re.findall(r"`([\w./]+)`", page)):
        if word.endswith(".py"):
            known = [PACKAGE / word, PACKAGE.parents[1] / word, *PACKAGE.rglob(word)]
            assert any(path.is_file() for path in known), word
        else:
            name = re.split(r"[./]", word.rstrip("/"))[-1]
            assert re.search(rf"\b{name}\b", code) or (PACKAGE / name).exists(), word
    tree = re.search(r"^src/bitemporal/\n(.*?)```", page, re.DOTALL | re.MULTILINE)[1]
    places = {path.relative_to(PACKAGE).parts for path in PACKAGE.rglob("*.py")}  # no folder that holds caches alone
    here = {parts[0] if len(parts) == 1 else f"{parts[0]}/" for parts in places}
    assert here <= set(re.findall(r"\w+(?:\.py|/)", tree))
