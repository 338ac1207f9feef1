"""The folders of voxgrain_tools lean one way, and no module needs itself."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import voxgrain_tools

ROOT = Path(voxgrain_tools.__file__).parent
# A folder may use those before it; "" is the package itself.
ORDER = ["", "corpus", "export", "train", "measure", "fixtures"]


def imports() -> dict[str, set[str]]:
    """Module -> modules of the package that it imports, at the top or inside a function."""
    names = {
        ".".join(p.relative_to(ROOT).with_suffix("").parts): p for p in ROOT.rglob("*.py") if p.name != "__init__.py"
    }
    found: dict[str, set[str]] = {}
    for name, path in names.items():
        found[name] = set()
        here = name.split(".")[:-1]
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.ImportFrom) or node.level == 0:
                continue
            base = here[: len(here) - (node.level - 1)] + (node.module.split(".") if node.module else [])
            for alias in node.names:
                for candidate in (".".join([*base, alias.name]), ".".join(base)):
                    if candidate in names:
                        found[name].add(candidate)
                        break
    return found


def room(module: str) -> str:
    return module.rpartition(".")[0]


def test_no_circle():
    tuple(TopologicalSorter(imports()).static_order())


def test_rooms_lean_one_way():
    backward = [
        (module, used)
        for module, uses in imports().items()
        for used in uses
        if ORDER.index(room(used)) > ORDER.index(room(module))
    ]
    assert not backward


def test_the_search_finds_imports():
    found = imports()
    assert "audio" in found["measure.whisper"] and "train.encoder" in found["measure.conditions"]
