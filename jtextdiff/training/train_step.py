"""One training step, pure and the same for every method: gradient, update, moving average."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Key

from jtextdiff.data.batches import Batch
from jtextdiff.devices.sharding import on_mesh, replicated
from jtextdiff.methods.method import Trainable
from jtextdiff.nets.batch_sharding import shard_batch
from jtextdiff.nets.functional import Params
from jtextdiff.nets.transformer import Transformer
from jtextdiff.training.optimizer import Optimizer

TrainState = dict[str, Any]
"""step [], params, ema (their moving average), opt (the optimizer's moments). No key: keys come from the step."""


def init_state(method: Trainable, optimizer: Optimizer, key: Key[Array, ""]) -> TrainState:
    """Returns the state before the first step, with fresh parameters."""
    return state_of(optimizer, method.init(key))


def state_of(optimizer: Optimizer, params: Params) -> TrainState:
    """Returns the state before the first step, with these parameters."""
    return {
        "step": jnp.zeros((), jnp.int32),
        "params": params,
        "ema": jax.tree.map(jnp.copy, params),
        "opt": optimizer.init(params),
    }


def train_step(
    method: Trainable, optimizer: Optimizer, state: TrainState, root: Key[Array, ""], batch: Batch
) -> tuple[TrainState, dict[str, Array]]:
    """Returns the state after one step, and the batch means of the loss and its terms, with the gradient's norm."""
    key = jax.random.fold_in(root, state["step"])
    gradient, metrics = _gradient(method, optimizer.accumulate, state["params"], key, batch)
    params, opt = optimizer.update(gradient, state["opt"], state["params"])
    ema = optimizer.average(state["ema"], params, state["step"])
    metrics["gradient_norm"] = jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(gradient)))
    return {"step": state["step"] + 1, "params": params, "ema": ema, "opt": opt}, metrics


def compiled_step(method: Trainable, optimizer: Optimizer, mesh: Mesh, layout: TrainState) -> Any:
    """Returns `train_step` jitted on a mesh. It donates its state, which has the layout `layout` before and after."""
    step = on_mesh(functools.partial(train_step, method, optimizer), mesh)
    return jax.jit(step, donate_argnums=0, out_shardings=(layout, replicated(mesh)))


def without_dropout(method: Any) -> Any:
    """Returns the method for validation: the same parameters, without dropout of activations, words or labels."""
    fields = vars(method)
    without: dict[str, Any] = {name: 0.0 for name in fields if name.endswith("_dropout")}
    without |= {
        name: dataclasses.replace(part, dropout=0.0) for name, part in fields.items() if isinstance(part, Transformer)
    }
    return dataclasses.replace(method, **without) if without else method


def mean_loss(method: Trainable, params: Any, key: Key[Array, ""], batch: Batch) -> tuple[Array, dict[str, Array]]:
    """Returns the mean loss of a batch, and the means of the loss and its terms."""
    loss, terms = method.loss(params, key, batch)
    means = {"loss": loss} | {name: term for name, term in terms.items()}
    return loss.mean(), {name: jnp.mean(value) for name, value in means.items()}


def _gradient(
    method: Trainable, parts: int, params: Any, key: Key[Array, ""], batch: Batch
) -> tuple[Any, dict[str, Array]]:
    """Returns the gradient of the mean loss and the metrics, averaged over `parts` microbatches with separate noise."""
    gradient = jax.grad(functools.partial(mean_loss, method), has_aux=True)
    if parts == 1:
        return gradient(params, key, batch)

    # Microbatch i has rows i, i + parts, …: the rows of a device stay there, however many devices there are.
    def split(leaf: Any) -> Array:
        return shard_batch(jnp.asarray(leaf).reshape(-1, parts, *leaf.shape[1:])).swapaxes(0, 1)

    def add(total: Any, inputs: tuple[Array, Batch]) -> tuple[Any, None]:
        index, microbatch = inputs
        microbatch = jax.tree.map(shard_batch, microbatch)
        result = gradient(params, jax.random.fold_in(key, index), microbatch)
        return jax.tree.map(lambda old, new: old + new / parts, total, result), None

    microbatches = jax.tree.map(split, batch)
    first = jax.tree.map(lambda leaf: leaf[0], microbatches)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(gradient, params, key, first))
    return jax.lax.scan(add, zeros, (jnp.arange(parts), microbatches))[0]
