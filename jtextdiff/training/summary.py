"""Messages of a training before its first step and after its last."""

from pathlib import Path

import jax

from jtextdiff.cli.output import say
from jtextdiff.control.trained import control_dir
from jtextdiff.nets.functional import adapters_of
from jtextdiff.run.config import Config, is_control
from jtextdiff.training.control_setup import control_flag
from jtextdiff.training.setup import Setup


def print_summary(setup: Setup, workdir: Path) -> None:
    """Prints what is about to be trained, on which text and which devices."""
    config, corpus = setup.config, setup.corpus
    params = setup.shapes["params"]
    count, adapters = (sum(leaf.size for leaf in jax.tree.leaves(tree)) for tree in (params, adapters_of(params)))
    trained = f", of which {adapters:,} are trained" if adapters else ""
    train, valid = corpus.splits["train"], corpus.splits["valid"]
    method = type(setup.method).__name__
    steps = f"{config.num_steps} steps of {config.batch_size} sequences"
    say(f"{method}: {count:,} parameters{trained}, {steps} -> {workdir}")
    say(
        f"text: {len(train):,} training and {len(valid):,} validation sequences, {len(train.tokens):,} training "
        f"tokens, vocabulary {corpus.tokenizer.vocab_size:,}, lengths up to {corpus.buckets}"
    )
    mesh = ", ".join(f"{name} {size}" for name, size in setup.mesh.shape.items() if size > 1)
    devices = f"devices: {jax.device_count()} x {jax.devices()[0].device_kind} ({jax.default_backend()})"
    say(f"{devices}, mesh: {mesh}" if mesh else devices)


def how_to_use(config: Config, workdir: Path) -> str:
    """Returns the command that uses the trained model; a control is found by the name of its directory."""
    sample = "sample with: python -m jtextdiff.sample --checkpoint"
    if not is_control(config):
        return f"{sample} {workdir}"
    if workdir.resolve() == control_dir(config.base, workdir.name).resolve():
        return f"{sample} {config.base} {control_flag(workdir.name)}"
    return f"to use it as a control, move it to {control_dir(config.base, config.label)}."
