"""Layers: imports go to lower layers only, third parties are imported in few places, and files are small and named."""

import ast
import functools
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "jtextdiff"
FILES = sorted(PACKAGE.rglob("*.py"))
LAYERS = (
    ("cli", "data", "metrics", "nets", "diffusion"),
    ("sampling", "devices"),
    ("methods", "run"),
    ("control",),
    ("inference", "pretrained"),
    ("training", "evaluation", "visualization"),
    ("benchmarks",),
)
"""From the lowest layer up: a folder may import from lower layers, and from no other folder of its own layer. The
commands are above all."""

FORBIDDEN = {
    ("sampling", "cli"),
    ("methods", "cli"),
    ("methods", "devices"),
    ("nets", "diffusion"),
    ("devices", "sampling"),
}
"""(folder, folder of a lower layer that it may not import from either)."""

ONLY_IMPORTED_IN = {
    "flax": ("nets/",),
    "diffrax": ("sampling/latent_flow.py",),
    "orbax": ("run/checkpoints.py",),
    "ml_collections": ("run/config",),
    "huggingface_hub": ("data/",),
    "tokenizers": ("data/",),
    "transformers": ("data/", "benchmarks/torch_gpt2.py"),
    "datasets": ("data/",),
    "safetensors": ("pretrained/",),
    "torch": ("benchmarks/torch_",),
    "qwix": ("nets/functional.py",),
    "lm_eval": ("benchmarks/lm_harness.py",),
}
"""Third party ↦ the only places that import it; the commands may also read ml_collections."""

LAZY = ("huggingface_hub", "tokenizers", "transformers", "datasets")
NO_JAX = ("cli", "data", "metrics")
VAGUE = ("utils", "util", "common", "helpers", "misc")
MOST_LINES = 300
MOST_FILES = 12


def name(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def folder_of(path: Path) -> str | None:
    """Returns the folder of a file, None for a command."""
    return name(path).split("/")[0] if path.parent != PACKAGE else None


def layer_of(folder: str) -> int:
    return next(layer for layer, folders in enumerate(LAYERS) if folder in folders)


def modules(nodes: list[ast.stmt] | ast.AST) -> set[str]:
    """Returns every module imported in a tree; `from a import b` counts as both a and a.b."""
    found: set[str] = set()
    for node in ast.walk(nodes if isinstance(nodes, ast.AST) else ast.Module(nodes, [])):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            found |= {str(node.module)} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def at_import(tree: ast.Module) -> set[str]:
    """Returns the modules imported with the file, outside functions and `if TYPE_CHECKING`."""

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


@functools.cache
def trees() -> dict[Path, ast.Module]:
    return {path: ast.parse(path.read_text(encoding="utf-8")) for path in FILES}


@functools.cache
def all_imports() -> dict[Path, set[str]]:
    return {path: modules(tree) for path, tree in trees().items()}


def imports(imported: set[str], module: str) -> bool:
    return any(other == module or other.startswith(module + ".") for other in imported)


def test_imports_go_to_lower_layers_only() -> None:
    wrong = []
    for path in FILES:
        folder = folder_of(path)
        if folder is None:
            continue
        imported = {module for module in all_imports()[path] if module.split(".")[0] == "jtextdiff"}
        # `from jtextdiff import x` names the package itself and jtextdiff.x, which is checked.
        others = {module.split(".")[1] for module in imported - {"jtextdiff"}} - {folder}
        below = {other for layer in LAYERS[: layer_of(folder)] for other in layer}
        allowed = {other for other in below if (folder, other) not in FORBIDDEN}
        wrong += [f"{name(path)} -> {other}" for other in others - allowed]
    assert not wrong


def test_every_folder_has_a_layer() -> None:
    assert {folder_of(path) for path in FILES} - {None} == {folder for layer in LAYERS for folder in layer}


def test_methods_do_not_import_each_other() -> None:
    methods = {other.stem for other in (PACKAGE / "methods").glob("*.py")} - {"method", "__init__"}
    files = [path for path in FILES if folder_of(path) == "methods"]
    pairs = [(path, other) for path in files for other in methods - {path.stem}]
    wrong = [(path, other) for path, other in pairs if imports(all_imports()[path], f"jtextdiff.methods.{other}")]
    assert not [f"{name(path)} -> {other}" for path, other in wrong]


def test_third_parties_are_imported_in_few_places() -> None:
    wrong = []
    for path in FILES:
        command = path.parent == PACKAGE
        wrong += [
            f"{name(path)} -> {party}"
            for party, places in ONLY_IMPORTED_IN.items()
            if imports(all_imports()[path], party)
            and not name(path).startswith(places)
            and not (command and party == "ml_collections")
        ]
    assert not wrong


def test_heavy_libraries_are_imported_where_they_are_used() -> None:
    early = {path: at_import(tree) for path, tree in trees().items()}
    assert not [f"{name(path)} -> {party}" for path in FILES for party in LAZY if imports(early[path], party)]


def test_text_and_the_command_line_do_not_import_jax() -> None:
    assert not [name(path) for path in FILES if folder_of(path) in NO_JAX and imports(all_imports()[path], "jax")]


def test_a_file_has_a_docstring_and_no_vague_name() -> None:
    assert not [name(path) for path, tree in trees().items() if not ast.get_docstring(tree) or path.stem in VAGUE]


def test_files_are_short() -> None:
    lengths = {name(path): len(path.read_text(encoding="utf-8").splitlines()) for path in FILES}
    assert not {file: length for file, length in lengths.items() if length > MOST_LINES}


def test_folders_have_few_files() -> None:
    folders = {path.parent for path in FILES} - {PACKAGE}
    assert not [name(folder) for folder in folders if len(list(folder.glob("*.py"))) - 1 > MOST_FILES]
