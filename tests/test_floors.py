"""Floors: imports only go down, each third party has one door, and every file keeps its size and its first line."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "jtextdiff"
FILES = sorted(PACKAGE.rglob("*.py"))
FORBIDDEN = {
    "core": ("text", "nets", "methods", "run"),
    "text": ("core", "nets", "methods", "run"),
    "nets": ("core", "text", "methods", "run"),
    "methods": ("run",),
    "run": (),
}
"""Floor ↦ the floors it may not see; none may see the entry points."""

DOORS = {
    "flax": ("nets/",),
    "diffrax": ("core/flow.py",),
    "orbax": ("run/checkpoints.py",),
    "ml_collections": ("run/config.py",),
    "tokenizers": ("text/",),
    "transformers": ("text/", "nets/pretrained.py", "run/peer_gpt2.py"),
    "datasets": ("text/",),
    "torch": ("run/peer.py", "run/peer_gpt2.py", "run/peer_ode.py"),
}
"""Third party ↦ the only places that import it; the entry points may also read ml_collections."""

ENTRIES = sorted(path.stem for path in PACKAGE.glob("*.py") if path.stem != "__init__")
LAZY = ("tokenizers", "transformers", "datasets")
VAGUE = ("utils", "util", "common", "helpers", "misc")


def name(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def modules(nodes: list[ast.stmt] | ast.AST) -> set[str]:
    """Every module imported in a tree; `from a import b` counts as both a and a.b."""
    found: set[str] = set()
    for node in ast.walk(nodes if isinstance(nodes, ast.AST) else ast.Module(nodes, [])):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            found |= {str(node.module)} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def at_import(tree: ast.Module) -> set[str]:
    """What is imported when the file is, outside functions and `if TYPE_CHECKING`."""

    class Outer(ast.NodeVisitor):
        found: set[str] = set()

        def visit_FunctionDef(self, node: ast.FunctionDef) -> None: ...

        def visit_If(self, node: ast.If) -> None:
            if ast.unparse(node.test) != "TYPE_CHECKING":
                self.generic_visit(node)

        def visit_Import(self, node: ast.Import) -> None:
            self.found |= modules(node)

        def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
            self.found |= modules(node)

    outer = Outer()
    outer.found = set()
    outer.visit(tree)
    return outer.found


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def sees(imported: set[str], module: str) -> bool:
    return any(one == module or one.startswith(module + ".") for one in imported)


@pytest.mark.parametrize("path", FILES, ids=name)
def test_imports_only_go_down(path: Path) -> None:
    floor = name(path).split("/")[0]
    if floor not in FORBIDDEN:
        return
    imported = modules(tree(path))
    arrows = [
        f"{name(path)} → {above}" for above in (*FORBIDDEN[floor], *ENTRIES) if sees(imported, f"jtextdiff.{above}")
    ]
    assert not arrows


def test_every_folder_is_a_floor() -> None:
    folders = {name(path).split("/")[0] for path in FILES if path.parent != PACKAGE}
    assert folders <= set(FORBIDDEN)


@pytest.mark.parametrize("path", sorted((PACKAGE / "methods").glob("*.py")), ids=name)
def test_methods_do_not_know_each_other(path: Path) -> None:
    shared = {"method", "filling", "belief", "noisy_words", "writing", "latents", "mentions", "labels", "__init__"}
    others = {other.stem for other in (PACKAGE / "methods").glob("*.py")} - shared - {path.stem}
    assert not [other for other in others if sees(modules(tree(path)), f"jtextdiff.methods.{other}")]


@pytest.mark.parametrize("path", FILES, ids=name)
def test_third_parties_have_one_door(path: Path) -> None:
    imported = modules(tree(path))
    entry = path.parent == PACKAGE
    strays = [
        party
        for party, doors in DOORS.items()
        if sees(imported, party) and not name(path).startswith(doors) and not (entry and party == "ml_collections")
    ]
    assert not strays


@pytest.mark.parametrize("path", FILES, ids=name)
def test_heavy_libraries_are_imported_where_they_are_used(path: Path) -> None:
    imported = at_import(tree(path))
    assert not [party for party in LAZY if sees(imported, party)]


@pytest.mark.parametrize("path", sorted((PACKAGE / "text").rglob("*.py")), ids=name)
def test_text_does_not_import_jax(path: Path) -> None:
    assert not sees(modules(tree(path)), "jax")


@pytest.mark.parametrize("path", FILES, ids=name)
def test_a_file_says_what_it_is(path: Path) -> None:
    assert ast.get_docstring(tree(path))
    assert path.stem not in VAGUE


@pytest.mark.parametrize("path", FILES, ids=name)
def test_a_file_is_one_idea_long(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 250
