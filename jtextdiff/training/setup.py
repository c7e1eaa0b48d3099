"""Builds a run before its first step: corpus, completed config, method, optimizer, initial or restored state."""

import copy
import dataclasses
import functools
import math
from pathlib import Path
from typing import Any, NamedTuple, cast

import jax
from jax.sharding import Mesh

from jtextdiff.cli.errors import UserError
from jtextdiff.cli.output import say
from jtextdiff.control.controls import RESERVED
from jtextdiff.data.corpus import Corpus
from jtextdiff.data.grammar.constituents import SYNTAX_CONTROLS
from jtextdiff.devices.memory import check_memory
from jtextdiff.devices.multihost import process_zero_first
from jtextdiff.devices.sharding import check_batch, make_mesh, shardings
from jtextdiff.inference.model import load
from jtextdiff.methods.classifier import Classifier
from jtextdiff.methods.components.types import TextSpec, text_spec_of
from jtextdiff.methods.method import Conditional, InitFromData, Trainable
from jtextdiff.nets.functional import Params, adapters_of, has_adapters, with_adapters
from jtextdiff.pretrained.families import open_source
from jtextdiff.pretrained.start import described, start_params
from jtextdiff.run import checkpoints
from jtextdiff.run.config import Config, build, is_control, spec
from jtextdiff.run.corpus import label_values, open_corpus
from jtextdiff.run.workdir import read_config
from jtextdiff.training.control_setup import RENAME, label_kind, labelled_corpus, with_base_params
from jtextdiff.training.optimizer import Optimizer
from jtextdiff.training.pseudo_labels import pseudo_labelled
from jtextdiff.training.train_step import TrainState, init_state, state_of

MAX_DRAWN_ON_HOST = 10**9
"""Parameters, at most, that are drawn on the host."""


class Setup(NamedTuple):
    """A run without its state: its text, its config and parts, and the shapes and layout of a state."""

    config: Config
    corpus: Corpus
    method: Trainable
    optimizer: Optimizer
    mesh: Mesh
    shapes: TrainState
    layout: TrainState

    @property
    def label(self) -> str:
        """The label that the run learns or is conditioned on, "" without one."""
        if is_control(self.config):
            return self.config.label
        return self.method.condition if isinstance(self.method, Conditional) else ""


def build_setup(config: Config, workdir: Path) -> Setup:
    """Prepares the text and builds every part. Raises UserError for what cannot be trained, or not on these devices."""
    mesh = make_mesh(**config.mesh)
    check_batch(mesh, config.batch_size, config.optim.accumulate)
    with process_zero_first("the text is prepared"):
        corpus = open_corpus(config, workdir)
        corpus = labelled_corpus(corpus, config) if is_control(config) else corpus
    config = complete_config(config, corpus, workdir)
    corpus = pseudo_labelled(corpus, config)
    method, optimizer = build(config.method), build(config.optim)
    shapes = jax.eval_shape(lambda key: init_state(method, optimizer, key), jax.random.key(0))
    return Setup(config, corpus, method, optimizer, mesh, shapes, shardings(mesh, shapes))


def validate_config(config: Config, workdir: Path) -> None:
    """Builds every part of a config and checks its numbers, before anything is written.

    Raises UserError naming the field that cannot be used.
    """
    for part in (config.text, config.method, config.optim):
        build(part)
    fields = {"num_steps": config.num_steps, "batch_size": config.batch_size}
    fields |= {f"every.{name}": value for name, value in config.every.items()}
    for name, value in fields.items():
        least = 0 if name == "num_steps" and config.get("init") else 1  # without steps, a run only imports
        if value < least:
            raise UserError(f"{name} must be at least {least}, got {value}.")
    if config.method.get("param_dtype") == "bfloat16" and config.num_steps and not config.method.lora_rank:
        raise UserError(
            "method.param_dtype=bfloat16 is for models that do not train: it would lose updates below 1/256 of a "
            "parameter. Leave it out, train adapters with method.lora_rank, or give --config.num_steps=0."
        )
    if config.method.get("lora_rank") and not (config.get("init") or config.warm_start):
        raise UserError(
            "method.lora_rank trains adapters alone, of parameters that are trained already: name them with "
            "--config.init (a published checkpoint) or --config.warm_start (a run), or leave out method.lora_rank."
        )
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
    checkpoints.check_path(workdir)


def complete_config(config: Config, corpus: Corpus, workdir: Path) -> Config:
    """Returns the config with the fields that follow from the text, and the steps over which the rate decays."""
    config = copy.deepcopy(config)
    with config.unlocked():
        text_spec = text_spec_of(corpus.tokenizer, corpus.buckets[-1], corpus.length_counts)
        config.method.text_spec = spec(TextSpec, **vars(text_spec))
        _fill_in_labels(config, corpus)
    _check_positions(config)
    _fill_in_decay_steps(config, workdir)
    return config


def _fill_in_labels(config: Config, corpus: Corpus) -> None:
    """Sets the values of the label that a control predicts, or that a method is conditioned on."""
    method = build(config.method)
    if is_control(config):
        config.method.values = corpus.label_values[config.label]
        if isinstance(method, Classifier):
            config.method.kind = label_kind(corpus, config.label)
    if isinstance(method, Conditional) and method.condition:
        if method.condition in (*RESERVED, *SYNTAX_CONTROLS):
            raise UserError(f"method.condition: --control {method.condition} means something else. {RENAME}")
        config.method.values = label_values(corpus, method.condition, "method.condition: the text")


def _check_positions(config: Config) -> None:
    """Raises UserError if texts, and a decoder's memory before them, have more positions than a network has learned."""
    method, length = config.method, config.method.text_spec.length
    for name in {"trunk", "encoder", "decoder"} & set(method):
        trunk, memory = method[name], method.memory_slots if name == "decoder" and method.levels.decoder_input else 0
        if "learned" in trunk.positions and trunk.max_length < memory + length:
            before = f" after {memory} of memory" if memory else ""
            longer = "" if config.get("init") else f"--config.method.{name}.max_length={memory + length} or "
            raise UserError(
                f"The texts have up to {length} tokens{before}, the network positions for {trunk.max_length}. Set "
                f"{longer}--config.text.length={trunk.max_length - memory}."
            )


def _fill_in_decay_steps(config: Config, workdir: Path) -> None:
    """Sets `optim.decay_steps` to the num_steps of the run's first start, and warns of steps after the decay."""
    if config.optim.decay_steps is None:
        stored = read_config(workdir).optim.decay_steps if checkpoints.has_checkpoints(workdir) else None
        config.optim.decay_steps = stored or config.num_steps or None
    if config.optim.decay_steps is None:  # a run without steps, whose decay begins when it trains
        return
    start = (
        "from the same init, or an export of this one" if config.get("init") else f"with --config.warm_start={workdir}"
    )
    if config.num_steps > config.optim.decay_steps and config.optim.decay != "constant":
        say(
            f"warning: the learning rate has fallen to zero by step {config.optim.decay_steps} "
            f"(optim.decay_steps), before num_steps = {config.num_steps}. To train longer at a useful rate, start a "
            f"new run {start}."
        )


def restore_or_init(setup: Setup, workdir: Path) -> tuple[TrainState, int]:
    """Returns the newest state on disk and its step, or an initial state and 0.

    An initial state is created on its devices. Its parameters are those of the run that `config.warm_start` names, of
    the published checkpoint that `config.init` names, or fresh ones.
    """
    config, layout = setup.config, setup.layout

    def fresh() -> Params:
        return jax.device_put(_init_params(setup), layout["params"])

    shapes = checkpoints.shapes_of(setup.shapes, layout)
    model, training = shapes["ema"], {name: part for name, part in shapes.items() if name != "ema"}
    restored = checkpoints.restore(workdir, {"model": model, "training": training})
    if restored is not None:
        step, parts = restored
        say(f"Resuming from step {step} of {workdir}.")
        return {**parts["training"], "ema": parts["model"]}, step
    if config.warm_start:
        step, params = _warm_params(setup)
        say(f"Starting from the parameters of {config.warm_start} at step {step}.")
    elif config.get("init"):
        checkpoint = open_source(config.init)
        wide = config.method.get("param_dtype") == "float32"
        check_memory(shapes, f"The parameters of {config.init}, their running mean and moments", can_be_half=wide)
        params = _with_fresh_adapters(setup, start_params(checkpoint, setup.method, shapes["params"], fresh))
        say(f"Starting from the {described(checkpoint, setup.method.text_spec)}.")
    else:
        params = fresh()
    return jax.jit(functools.partial(state_of, setup.optimizer), out_shardings=layout)(params), 0


def _warm_params(setup: Setup) -> tuple[int, Params]:
    """Returns the step and the parameters of the run that `config.warm_start` names.

    If that has no adapters and this run does, those are fresh.
    """
    base, method = Path(setup.config.warm_start), setup.method
    if not setup.config.method.get("lora_rank") or read_config(base).method.get("lora_rank"):
        return checkpoints.load_params(base, method, setup.mesh)
    without: Any = dataclasses.replace(cast(Any, method), lora_rank=0)
    step, params = checkpoints.load_params(base, without, setup.mesh)
    return step, _with_fresh_adapters(setup, params)


def _with_fresh_adapters(setup: Setup, params: Params) -> Params:
    """Returns parameters with the adapters that the method has besides, if any."""
    if not has_adapters(setup.shapes["params"]):
        return params
    adapters = jax.jit(lambda key: adapters_of(setup.method.init(key)))(jax.random.key(setup.config.seed))
    return with_adapters(params, adapters)


def _init_params(setup: Setup) -> Params:
    """Returns fresh parameters with those that are computed from the training text or taken from the base."""
    params = _random_params(setup)
    if is_control(setup.config):
        return with_base_params(params, load(setup.config.base).params)
    if not isinstance(setup.method, InitFromData):
        return params
    train = setup.corpus.splits["train"]
    return setup.method.init_from_data(params, train.tokens, train.offsets)


def _random_params(setup: Setup) -> Params:
    """Returns parameters drawn on the host, for which a GPU would compile for half a minute; large ones on the mesh."""
    key = jax.random.key(setup.config.seed)
    size = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(setup.shapes["params"]))
    host = _host_device() if jax.process_count() == 1 and size <= MAX_DRAWN_ON_HOST else None
    if host is None:
        return jax.jit(setup.method.init, out_shardings=setup.layout["params"])(key)
    with jax.default_device(host):
        return jax.jit(setup.method.init)(key)


def _host_device() -> Any:
    """Returns this machine's processor as a device, None where JAX_PLATFORMS leaves it out."""
    try:
        return jax.local_devices(backend="cpu")[0]
    except (RuntimeError, AssertionError):
        return None
