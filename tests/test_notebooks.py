"""The notebooks are stored without outputs, valid, and run from top to bottom at toy size."""

import json
from pathlib import Path

import nbformat
import pytest
from IPython.core.inputtransformer2 import TransformerManager
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "launch" / "notebooks").glob("*.ipynb"))
SIZES = ("num_layers=1", "width=32", "num_heads=2")
SMALL = ["batch_size=32", *(f"method.trunk.{size}" for size in SIZES)]
SMALL_VAE = ["batch_size=32", *(f"method.{part}.{size}" for part in ("encoder", "decoder") for size in SIZES)]
CLAUSES = ("物流很快", "包装不错", "屏幕有划痕", "客服态度很差", "以后再买", "味道好极了", "不值这个价", "还会推荐")
REVIEWS = [f"{one}，{other}！第{number}次" for one in CLAUSES for other in CLAUSES for number in range(6)]
TOYS = {
    "chinese_reviews": {
        "TEXT": "reviews.jsonl",
        "LABELS": "mood=sentiment(bad=negative,good=positive)",
        "CONFIG": "della.py:small",
        "NUM_STEPS": 4,
        "NUM_EDITED": 8,
        "TARGET_PROBABILITIES": (0.9,),
        "OVERRIDES": [*SMALL_VAE, "method.levels.num=1", "text.tokenizer=characters:1", "text.length=32"],
        "CONTROL_OVERRIDES": ["num_labelled=5", "latent.max_iterations=5"],
    },
    "diffusion_lm": {"NUM_STEPS": 4, "NUM_SAMPLES": 8, "SAMPLING_STEPS": (2,), "NUM_SCORED": 8, "OVERRIDES": SMALL},
    "control": {
        "NUM_STEPS": 4,
        "CONTROL_STEPS": 4,
        "NUM_SAMPLES": 8,
        "SAMPLING_STEPS": 3,
        "RATES": (0.5,),
        "OVERRIDES": SMALL,
    },
    "latent_editing": {
        "NUM_STEPS": 4,
        "NUM_EDITED": 8,
        "TARGET_PROBABILITIES": (0.9,),
        "OVERRIDES": SMALL_VAE,
        "CONTROL_OVERRIDES": ["num_labelled=5", "latent.max_iterations=5"],
    },
    "masked_and_baselines": {"NUM_STEPS": 4, "NUM_SAMPLES": 8, "NUM_SCORED": 8, "CALLS": (2,), "OVERRIDES": SMALL},
}
each = pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)


def code(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def parameters(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    (cell,) = (cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ()))
    return cell


def test_every_notebook_has_toy_settings() -> None:
    assert {file.stem for file in NOTEBOOKS} == TOYS.keys()


@each
def test_a_notebook_is_valid_and_has_no_outputs(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    notebook = nbformat.reads(text, as_version=nbformat.NO_CONVERT)
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5) and notebook.metadata.kernelspec.name == "python3"
    assert text.endswith("}\n") and len({cell.id for cell in notebook.cells}) == len(notebook.cells)
    assert notebook.cells[0].cell_type == "markdown"
    assert all(not cell.outputs and cell.execution_count is None for cell in code(notebook))


@each
def test_its_code_starts_with_installation_and_parameters_and_compiles(file: Path) -> None:
    notebook = nbformat.read(file, as_version=4)
    first, second, *_ = code(notebook)
    assert "%pip install" in first.source and "SOURCE" in first.source and "jax.devices()" in first.source
    assert second is parameters(notebook)
    set_there = [line.partition(" = ")[0] for line in second.source.splitlines()]
    assert set_there == [*TOYS[file.stem], "RUNS"]
    transform = TransformerManager().transform_cell
    for cell in code(notebook):
        compile(transform(cell.source), f"{file.name}:{cell.id}", "exec")


@pytest.mark.slow
@each
def test_it_runs_from_top_to_bottom(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At toy size, in a folder with the configs only."""
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setenv("PIP_NO_INDEX", "1")  # nothing is installed
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    lines = [json.dumps({"text": review, "mood": "bad" if "不" in review else "good"}) for review in REVIEWS]
    (tmp_path / "reviews.jsonl").write_text("\n".join(lines) + "\n")
    notebook = nbformat.read(file, as_version=4)
    toy = "\n".join(f"{name} = {value!r}" for name, value in TOYS[file.stem].items())
    parameters(notebook).source = f'{toy}\nRUNS = Path("runs")'
    own = KernelSpecManager(kernel_dirs=[])  # the kernel of this Python
    manager = AsyncKernelManager(kernel_name="python3", kernel_spec_manager=own)
    client = NotebookClient(notebook, km=manager, timeout=280, resources={"metadata": {"path": str(tmp_path)}})
    client.execute(cleanup_kc=True)
    outputs = [output for cell in code(notebook) for output in cell.outputs]
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 3
