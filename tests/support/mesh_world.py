"""Prints the losses and samples of a few training steps on given meshes as JSON, in one or several processes.

python tests/support/mesh_world.py '{"devices": 8, "double": false, "steps": 10, "meshes": {"fsdp": [1, 8, 1]}}'
"""

import dataclasses
import json
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jtextdiff.data.batches import Batch
from jtextdiff.devices import sharding
from jtextdiff.diffusion.randomness import keys_for
from jtextdiff.inference.sample_batches import run_batched
from jtextdiff.methods.components.latents import LatentSampler
from jtextdiff.methods.components.types import TextSpec, nothing_given
from jtextdiff.methods.diffusion_lm import DiffusionLM
from jtextdiff.methods.masked import Masked
from jtextdiff.methods.text_vae import TextVAE
from jtextdiff.nets.transformer import Transformer
from jtextdiff.sampling.gaussian_samplers import Sampler
from jtextdiff.training.optimizer import Optimizer
from jtextdiff.training.train_step import compiled_step, init_state

ROWS, LENGTH, NUM_SAMPLES = 32, 8, 24
TEXT_SPEC = TextSpec(vocab_size=24, mask=24, pad=0, eos=1, unk=2, length=LENGTH, length_counts=(0,) + (1,) * LENGTH)
TRUNK = Transformer(num_layers=1, width=32, num_heads=4, expansion=2, time_features=8, max_length=16, dropout=0.1)
METHODS = {
    "embedding": DiffusionLM(
        text_spec=TEXT_SPEC, trunk=TRUNK, embed_dim=16, num_steps=50, embeddings="learned", sampler=Sampler(steps=4)
    ),
    "discrete": Masked(text_spec=TEXT_SPEC, trunk=TRUNK),
    "latent": TextVAE(
        text_spec=TEXT_SPEC,
        encoder=TRUNK,
        decoder=dataclasses.replace(TRUNK, causal=True),
        latent_dim=8,
        sampler=LatentSampler(),
    ),
}
OPTIM = Optimizer(accumulate=2, warmup=1, decay="constant", peak=1e-3)


def batch_of(step: int) -> Batch:
    rng = np.random.default_rng(step)
    valid = np.arange(LENGTH) < rng.integers(2, LENGTH + 1, (ROWS, 1))
    tokens = np.where(valid, rng.integers(3, 24, (ROWS, LENGTH)), 0).astype(np.int32)
    return Batch(tokens, valid, np.zeros_like(valid), {}, np.full(ROWS, 0.5, np.float32))


def run_on_mesh(method: Any, sizes: list[int], settings: dict[str, Any]) -> dict[str, Any]:
    """Returns losses of the first steps, samples of the initial parameters, and the number of rows of this process."""
    mesh = sharding.make_mesh(*sizes)
    real = jnp.float64 if settings["double"] else jnp.float32
    cast = lambda leaf: leaf.astype(real) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf
    init = lambda key: jax.tree.map(cast, init_state(method, OPTIM, key))
    layout = sharding.shardings(mesh, jax.eval_shape(init, jax.random.key(0)))
    state = jax.jit(init, out_shardings=layout)(jax.random.key(0))
    drawn = run_batched(
        method, "sample", state["ema"], keys_for(jax.random.key(1), jnp.arange(NUM_SAMPLES)),
        nothing_given(NUM_SAMPLES, LENGTH), [None],
    )  # fmt: skip
    step = compiled_step(method, OPTIM, mesh, layout)
    local_rows, losses = sharding.local_row_indices(mesh, ROWS), []
    root = jax.jit(lambda: jax.random.key(2), out_shardings=sharding.replicated(mesh))()
    for index in range(settings["steps"]):
        local = jax.tree.map(lambda leaf: leaf[local_rows], batch_of(index))
        state, metrics = step(state, root, sharding.place_batch(local, mesh, ROWS))
        losses.append(float(metrics["loss"]))
    return {
        "losses": losses,
        "tokens": drawn.tokens.tolist(),
        "mine": len(local_rows),
    }


def main(settings: dict[str, Any]) -> None:
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_enable_x64", settings["double"])
    jax.config.update("jax_num_cpu_devices", settings["devices"])
    if "process" in settings:
        address, num, process = settings["process"]
        jax.distributed.initialize(address, num, process, cluster_detection_method="deactivate")
    names = settings.get("methods", list(METHODS))
    results = {
        name: {mesh: run_on_mesh(METHODS[name], sizes, settings) for mesh, sizes in settings["meshes"].items()}
        for name in names
    }
    print(json.dumps(results))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
