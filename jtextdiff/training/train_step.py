"""One training step: gradient, update, running mean. Pure, and the same for every method."""

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
from jtextdiff.nets.batch_sharding import by_rows
from jtextdiff.nets.transformer import Transformer
from jtextdiff.training.optimizer import AdamW

TrainState = dict[str, Any]
"""step [], params, ema (their running mean), opt (the optimiser's moments). No key: keys come from the step."""


def init_state(method: Trainable, optim: AdamW, key: Key[Array, ""]) -> TrainState:
    params = method.init(key)
    return {
        "step": jnp.zeros((), jnp.int32),
        "params": params,
        "ema": jax.tree.map(jnp.copy, params),
        "opt": optim.init(params),
    }


def train_step(
    method: Trainable, optim: AdamW, state: TrainState, root: Key[Array, ""], batch: Batch
) -> tuple[TrainState, dict[str, Array]]:
    """The state after one step, and the batch means of the loss and its terms, with the gradient's norm."""
    key = jax.random.fold_in(root, state["step"])
    gradient, metrics = _gradient(method, optim.accumulate, state["params"], key, batch)
    params, opt = optim.update(gradient, state["opt"], state["params"])
    ema = optim.average(state["ema"], params, state["step"])
    metrics["gradient_norm"] = jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(gradient)))
    return {"step": state["step"] + 1, "params": params, "ema": ema, "opt": opt}, metrics


def compiled_step(method: Trainable, optim: AdamW, mesh: Mesh, layout: TrainState) -> Any:
    """`train_step` on a mesh: the state, which it is given to keep, lies as `layout` says before and after."""
    step = on_mesh(functools.partial(train_step, method, optim), mesh)
    return jax.jit(step, donate_argnums=0, out_shardings=(layout, replicated(mesh)))


def without_dropout(method: Any) -> Any:
    """The method as validation text is to see it: the same parameters, nothing dropped."""
    trunks = {name: part for name, part in vars(method).items() if isinstance(part, Transformer)}
    still = {name: dataclasses.replace(trunk, dropout=0.0) for name, trunk in trunks.items()}
    return dataclasses.replace(method, **still) if still else method


def mean_loss(method: Trainable, params: Any, key: Key[Array, ""], batch: Batch) -> tuple[Array, dict[str, Array]]:
    """The loss of a batch, and it with its terms as means over the batch."""
    loss, terms = method.loss(params, key, batch)
    means = {"loss": loss} | {name: term for name, term in terms.items()}
    return loss.mean(), {name: jnp.mean(value) for name, value in means.items()}


def _gradient(
    method: Trainable, parts: int, params: Any, key: Key[Array, ""], batch: Batch
) -> tuple[Any, dict[str, Array]]:
    """The gradient of the mean loss; in `parts` microbatches, each with noise of its own, it is their mean."""
    gradient = jax.grad(functools.partial(mean_loss, method), has_aux=True)
    if parts == 1:
        return gradient(params, key, batch)
    # Every parts-th row: the rows of a device stay there, however many devices there are.
    every = lambda leaf: by_rows(jnp.asarray(leaf).reshape(-1, parts, *leaf.shape[1:]))
    micro = jax.tree.map(lambda leaf: every(leaf).swapaxes(0, 1), batch)

    def add(total: Any, inputs: tuple[Array, Batch]) -> tuple[Any, None]:
        index, part = inputs
        part = jax.tree.map(by_rows, part)
        result = gradient(params, jax.random.fold_in(key, index), part)
        return jax.tree.map(lambda old, new: old + new / parts, total, result), None

    first = jax.tree.map(lambda leaf: leaf[0], micro)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(gradient, params, key, first))
    return jax.lax.scan(add, zeros, (jnp.arange(parts), micro))[0]
