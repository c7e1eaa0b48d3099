"""jtextdiff: text diffusion in JAX.

import jtextdiff as jtd
model = jtd.load("runs/diffusion_lm")
model.sample(8, seed=0, steps=50)
"""

import importlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from jtextdiff.control import controls as controls
    from jtextdiff.control.balancing import interference as interference
    from jtextdiff.data.grammar import restaurants as restaurants
    from jtextdiff.evaluation.control_success import control_checker as control_checker
    from jtextdiff.evaluation.editing.edits import EditSettings as EditSettings
    from jtextdiff.evaluation.editing.edits import run_edits as run_edits
    from jtextdiff.evaluation.editing.tasks import EditTask as EditTask
    from jtextdiff.evaluation.editing.tasks import edit_task as edit_task
    from jtextdiff.evaluation.label_judges import phrase_judge as phrase_judge
    from jtextdiff.inference.editing.flow_settings import FlowSettings as FlowSettings
    from jtextdiff.inference.editing.types import Edit as Edit
    from jtextdiff.inference.interpolation import interpolate as interpolate
    from jtextdiff.inference.model import Model as Model
    from jtextdiff.metrics.bleu import corpus_bleu as corpus_bleu
    from jtextdiff.metrics.ngrams import distinct_ngrams as distinct_ngrams
    from jtextdiff.run.corpus import open_corpus as open_corpus
    from jtextdiff.train import train_model as train_model
    from jtextdiff.visualization.html_page import html_page as html_page
    from jtextdiff.visualization.png_figure import draw_png as draw_png
    from jtextdiff.visualization.recording import record as record


__version__ = "0.1.0"

_HOMES = {
    "controls": ("jtextdiff.control.controls", None),
    "restaurants": ("jtextdiff.data.grammar.restaurants", None),
    "Model": ("jtextdiff.inference.model", "Model"),
    "train_model": ("jtextdiff.train", "train_model"),
    "open_corpus": ("jtextdiff.run.corpus", "open_corpus"),
    # latent editing
    "Edit": ("jtextdiff.inference.editing.types", "Edit"),
    "FlowSettings": ("jtextdiff.inference.editing.flow_settings", "FlowSettings"),
    "interpolate": ("jtextdiff.inference.interpolation", "interpolate"),
    "interference": ("jtextdiff.control.balancing", "interference"),
    # trajectories
    "record": ("jtextdiff.visualization.recording", "record"),
    "draw_png": ("jtextdiff.visualization.png_figure", "draw_png"),
    "html_page": ("jtextdiff.visualization.html_page", "html_page"),
    # evaluation
    "control_checker": ("jtextdiff.evaluation.control_success", "control_checker"),
    "phrase_judge": ("jtextdiff.evaluation.label_judges", "phrase_judge"),
    "EditSettings": ("jtextdiff.evaluation.editing.edits", "EditSettings"),
    "EditTask": ("jtextdiff.evaluation.editing.tasks", "EditTask"),
    "edit_task": ("jtextdiff.evaluation.editing.tasks", "edit_task"),
    "run_edits": ("jtextdiff.evaluation.editing.edits", "run_edits"),
    "corpus_bleu": ("jtextdiff.metrics.bleu", "corpus_bleu"),
    "distinct_ngrams": ("jtextdiff.metrics.ngrams", "distinct_ngrams"),
}
"""The module of each public name, and the name there; None stands for the module itself."""


def load(run: "str | Path", *, at: int | str = "latest", overrides: Sequence[str] = ()) -> "Model":
    """Loads a trained model from its run directory; `at` is "latest", "best" or a step.

    A published checkpoint, its folder or "hub:NAME", is loaded by `from_pretrained`. `overrides` such as
    "method.sampler.steps=50" change the stored config; "mesh.fsdp=8" divides the parameters, which are otherwise whole
    on each device. From here on jax caches compiled programs below $JTEXTDIFF_CACHE. Raises
    UserError if there is no run, or none of its checkpoints can be read.
    """
    from jtextdiff.cli.errors import UserError
    from jtextdiff.devices.compilation_cache import enable_compilation_cache
    from jtextdiff.inference import model
    from jtextdiff.pretrained.standalone import is_published

    if is_published(run):
        if at != "latest":
            raise UserError(
                f"{run} is a published checkpoint, which has no steps: leave out --at {at}, in Python at={at!r}."
            )
        return from_pretrained(run, overrides=overrides)
    enable_compilation_cache()
    return model.load(run, at=at, overrides=overrides)


def from_pretrained(source: "str | Path", *, tokenizer: str | None = None, overrides: Sequence[str] = ()) -> "Model":
    """Loads a published checkpoint, such as one of MDLM or LLaDA, from its folder, or "hub:NAME".

    `tokenizer` is "pretrained:NAME", in place of that of the folder. All texts are as long as the checkpoint's longest,
    or 1,024 tokens, unless a control gives a length; a run that starts from it learns the lengths of its text.
    `overrides` such as "text.length=256" and "method.trunk.bfloat16=true" change its config; "mesh.fsdp=8" divides the
    parameters. Those that are all stored as bfloat16 stay so. Raises UserError for whatever cannot be read, or does not
    fit into memory.
    """
    from jtextdiff.devices.compilation_cache import enable_compilation_cache
    from jtextdiff.inference.model import Model
    from jtextdiff.pretrained.standalone import read_model
    from jtextdiff.run.config_files import check_overrides

    enable_compilation_cache()
    named = [] if tokenizer is None else [f"text.tokenizer={tokenizer}"]
    return Model(**read_model(source, [*check_overrides(overrides), *named]))


def __getattr__(name: str) -> Any:
    """Imports a public name on first use, so that `--help` does not wait for jax."""
    if name not in _HOMES:
        raise AttributeError(f"module 'jtextdiff' has no attribute {name!r}; it has {sorted(_HOMES)}")
    module, attribute = _HOMES[name]
    home = importlib.import_module(module)
    return home if attribute is None else getattr(home, attribute)


def __dir__() -> list[str]:
    return [*globals(), *_HOMES]
