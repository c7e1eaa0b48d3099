"""Before the first step: the text, the completed config, and a state that is fresh, resumed or borrowed."""

import copy
import functools
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from jtextdiff.cli.errors import UserError
from jtextdiff.cli.output import say
from jtextdiff.data.corpus import Corpus
from jtextdiff.devices.multihost import first_alone
from jtextdiff.devices.sharding import check_batch, make_mesh, shardings
from jtextdiff.inference.model import load
from jtextdiff.methods.components.types import Language
from jtextdiff.methods.method import Primed, Trainable
from jtextdiff.nets.functional import Params
from jtextdiff.run import checkpoints
from jtextdiff.run.config import Config, build, spec
from jtextdiff.run.corpus import corpus_values, open_corpus
from jtextdiff.run.workdir import read_config
from jtextdiff.training.control_setup import kind_of, labelled, with_frozen
from jtextdiff.training.optimizer import AdamW
from jtextdiff.training.pseudo_labels import guessed
from jtextdiff.training.train_step import TrainState, init_state


class Plan(NamedTuple):
    """A run before its first state: the text, the completed config, its parts, and how a state will lie."""

    config: Config
    corpus: Corpus
    method: Trainable
    optim: AdamW
    mesh: Mesh
    init: Callable[..., TrainState]
    shapes: TrainState
    layout: TrainState


def plan(config: Config, workdir: Path) -> Plan:
    """What a config comes to on the devices there are. Raises UserError for what cannot be trained, or not on them."""
    mesh = make_mesh(**config.mesh)
    check_batch(mesh, config.batch_size, config.optim.accumulate)
    with first_alone("the text is prepared"):
        corpus = open_corpus(config, workdir)
        corpus = labelled(corpus, config) if "base" in config else corpus
    config = completed(config, corpus, workdir)
    corpus = guessed(corpus, config)
    method, optim = build(config.method), build(config.optim)
    init = functools.partial(init_state, method, optim)
    shapes = jax.eval_shape(init, jax.random.key(0))
    return Plan(config, corpus, method, optim, mesh, init, shapes, shardings(mesh, shapes))


def completed(config: Config, corpus: Corpus, workdir: Path) -> Config:
    """The config with what only now is known: the language, and the steps over which the rate decays."""
    config = copy.deepcopy(config)
    language = Language(
        vocab_size=corpus.tokenizer.vocab_size,
        mask=corpus.tokenizer.mask,
        pad=corpus.tokenizer.pad,
        eos=corpus.tokenizer.eos,
        unk=-1 if corpus.tokenizer.unk is None else corpus.tokenizer.unk,
        length=corpus.buckets[-1],
        length_counts=corpus.length_counts,
    )
    with config.unlocked():
        config.method.language = spec(Language, **vars(language))
        if "base" in config:
            config.method.values = corpus.label_values[config.label]
            if "kind" in config.method:
                config.method.kind = kind_of(corpus, config.label)
        if config.method.get("condition"):
            config.method.values = corpus_values(corpus, config.method.condition)
    trunk = config.method.get("trunk")
    if trunk is not None and "learned" in trunk.positions and trunk.max_length < language.length:
        raise UserError(
            f"The texts have up to {language.length} tokens, the network positions for {trunk.max_length}. Set "
            f"--config.method.trunk.max_length={language.length} or --config.text.length={trunk.max_length}."
        )
    if config.optim.decay_steps is None:
        begun = checkpoints.has_checkpoints(workdir)
        config.optim.decay_steps = read_config(workdir).optim.decay_steps if begun else config.num_steps
    if config.num_steps > config.optim.decay_steps and config.optim.decay != "constant":
        say(
            f"warning: the learning rate has fallen to zero by step {config.optim.decay_steps} "
            f"(optim.decay_steps), before num_steps = {config.num_steps}. To train longer at a useful rate, start a "
            f"new run with --config.warm_start={workdir}."
        )
    return config


def check(config: Config, workdir: Path) -> None:
    """Builds every part of a config and looks at its numbers, before anything is written.

    Raises UserError naming the field that cannot be used.
    """
    for part in (config.text, config.method, config.optim):
        build(part)
    fields = {"num_steps": config.num_steps, "batch_size": config.batch_size}
    fields |= {f"every.{name}": value for name, value in config.every.items()}
    for name, value in fields.items():
        if value < 1:
            raise UserError(f"{name} must be at least 1, got {value}.")
    if not 0 <= config.seed < 2**32:
        raise UserError(f"seed must be from 0 to 2^32 - 1, got {config.seed}.")
    if config.batch_size % config.optim.accumulate:
        raise UserError(
            f"batch_size must divide into optim.accumulate equal parts, got {config.batch_size} and "
            f"{config.optim.accumulate}."
        )
    if config.warm_start and not checkpoints.has_checkpoints(Path(config.warm_start)):
        raise UserError(f"warm_start: there are no checkpoints in {config.warm_start}.")
    if workdir.exists() and not workdir.is_dir():
        raise UserError(f"--workdir {workdir} is a file; expected a directory, or a name that is free.")


def restore_or_init(plan: Plan, workdir: Path) -> tuple[TrainState, int]:
    """The newest state on disk and its step; or a fresh one, born on its devices, its parameters primed or those of
    the run that `config.warm_start` names."""
    config, layout = plan.config, plan.layout
    wanted = checkpoints.shapes_of(plan.shapes, layout)
    model, training = wanted["ema"], {name: part for name, part in wanted.items() if name != "ema"}
    found = checkpoints.restore(workdir, {"model": model, "training": training}, tell=say)
    if found is not None:
        step, parts = found
        say(f"Going on from step {step} of {workdir}.")
        return {**parts["training"], "ema": parts["model"]}, step
    state = jax.jit(plan.init, out_shardings=layout)(jax.random.key(config.seed))
    if not config.warm_start:
        params = jax.device_put(primed(plan, state["params"]), layout["params"])
        return {**state, "params": params, "ema": jax.tree.map(jnp.copy, params)}, 0
    found = checkpoints.restore(Path(config.warm_start), {"model": model}, tell=say)
    step, parts = found or (0, {"model": state["ema"]})
    say(f"Starting from the parameters of {config.warm_start} at step {step}.")
    return {**state, "params": parts["model"], "ema": jax.tree.map(jnp.copy, parts["model"])}, 0


def primed(plan: Plan, params: Params) -> Params:
    """Fresh parameters, with what the method reads off the training text or takes from its base."""
    if "base" in plan.config:
        return with_frozen(params, load(plan.config.base).params)
    if not isinstance(plan.method, Primed):
        return params
    train = plan.corpus.splits["train"]
    return plan.method.prime(params, train.tokens, train.offsets)


def introduce(plan: Plan, workdir: Path) -> None:
    """Says what is about to be trained, on what and where."""
    config, corpus = plan.config, plan.corpus
    count = sum(leaf.size for leaf in jax.tree.leaves(plan.shapes["params"]))
    train, valid = corpus.splits["train"], corpus.splits["valid"]
    method = config.method["class"].partition(":")[2]
    say(f"{method}: {count:,} parameters, {config.num_steps} steps of {config.batch_size} sequences -> {workdir}")
    say(
        f"text: {len(train):,} training and {len(valid):,} validation sequences, {len(train.tokens):,} training "
        f"tokens, vocabulary {corpus.tokenizer.vocab_size:,}, lengths up to {corpus.buckets}"
    )
    lie = ", ".join(f"{name} {size}" for name, size in plan.mesh.shape.items() if size > 1)
    told = f"devices: {jax.device_count()} x {jax.devices()[0].device_kind} ({jax.default_backend()})"
    say(f"{told}, mesh: {lie}" if lie else told)
