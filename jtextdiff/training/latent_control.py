"""Fitting: a control of latents, learned in seconds from few labelled texts, and what is known of how good it is.

Every member is fitted without its own share of the labelled texts; by its log-loss on that share the penalty of
weights is chosen, and one temperature for all, so that a probability means what it says. No other label is looked at;
how often it is right, and how well that is known, is told of the valid split.
"""

import functools
import json
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from jtextdiff.cli.errors import UserError
from jtextdiff.cli.output import say, write_whole
from jtextdiff.control.trained import home_of
from jtextdiff.data.corpus import Corpus
from jtextdiff.devices.sharding import mesh_of, num_shards
from jtextdiff.diffusion.distributions import Normal
from jtextdiff.inference.batched import compiled_once, turns
from jtextdiff.inference.model import Model, load
from jtextdiff.methods.components.latents import collapse_warning, whitened
from jtextdiff.methods.latent_classifier import LatentClassifier, log_loss
from jtextdiff.metrics.ngram_classifier import learn
from jtextdiff.nets.functional import Params
from jtextdiff.run import checkpoints
from jtextdiff.run.config import Config, build
from jtextdiff.run.corpus import open_corpus
from jtextdiff.run.workdir import agree
from jtextdiff.training.control_setup import labelled
from jtextdiff.training.setup import completed

TRIED = 1_000
"""Texts on which penalties are tried, at most."""

TEMPERATURES = np.geomspace(0.1, 10.0, 201)
VALID = 5_000
"""Texts of the valid split, at most, that the accuracy which is reported is of."""


class Known(NamedTuple):
    """Labelled latents: q(z | text) of each text, and the value that it has."""

    law: Normal  # [n, z]
    value: Int[np.ndarray, "n"]


def fit(config: Config, workdir: Path) -> None:
    """Fits a control of a latent base and keeps it in `workdir`, as a run of one step; if there is one, says so.

    Raises UserError if that is another one, and for labels too few to learn from.
    """
    there = checkpoints.has_checkpoints(workdir)
    corpus = labelled(open_corpus(config, workdir), config)
    config = completed(config, corpus, workdir)
    agree(workdir, config, resumed=there)
    if there:
        say(f"{workdir} is there already. To fit it anew, remove it.")
        return
    method, base = build(config.method), load(config.base)
    corpus.tokenizer.save(workdir / "tokenizer")
    train, valid = (
        known(base, corpus, split, method.label, most) for split, most in (("train", method.most), ("valid", VALID))
    )
    check_number(train, method)
    say(f"{method.label}: {len(train.value):,} labelled texts, {', '.join(method.values)} -> {workdir}")
    divergence = train.law.kl(Normal(mean=jnp.zeros(()), std=jnp.ones(())))
    if warning := collapse_warning(float(divergence.sum(-1).mean())):
        say(warning)
    params, found = fitted(method, jax.random.key(config.seed), base.params["law"], train)
    found |= told_of(method, params, valid) | {"text_accuracy": of_text(corpus, method)}
    with checkpoints.open_checkpoints(workdir) as manager:
        checkpoints.save(manager, 1, params, {"step": jnp.ones((), jnp.int32)}, found["log_loss"])
        manager.wait_until_finished()
    write_whole(workdir / "metrics.jsonl", json.dumps({"step": 1, "loss": found["log_loss"], **found}) + "\n")
    say(
        f"On shares left out, by which the penalty {found['penalty']:g} and the temperature {found['temperature']:.2f} "
        f"were chosen: log-loss {found['log_loss']:.3f} nats, accuracy {found['accuracy']:.3f}."
    )
    say(
        f"On {len(valid.value):,} texts of valid: accuracy {found['valid_accuracy']:.3f}, calibration error "
        f"{found['valid_calibration_error']:.3f}; accuracy of n-grams of the same labelled texts, without latents: "
        f"{found['text_accuracy']:.3f}."
    )
    done = f"Done. Rewrite with: python -m jtextdiff.edit --checkpoint {config.base} --control {workdir.name}=VALUE"
    found_there = workdir.resolve() == home_of(config.base, workdir.name).resolve()
    say(done if found_there else f"Done. It will be found once it is {home_of(config.base, config.label)}.")


def check_number(texts: Known, method: LatentClassifier) -> None:
    """Raises UserError for a value of which a member would see no text: each leaves out a share of its own."""
    counts = np.bincount(texts.value, minlength=len(method.values))
    if few := [f"{value} ({num})" for value, num in zip(method.values, counts, strict=True) if num < 2]:
        raise UserError(
            f"{method.label}: at least 2 texts of each value are needed to learn from; got {', '.join(few)}."
        )


def known(base: Model, corpus: Corpus, split: str, label: str, most: int) -> Known:
    """q(z | text) of at most `most` labelled texts of a split, evenly taken."""
    of_split = corpus.splits[split]
    rows = of_split.evenly(most)
    method: Any = base.method
    mesh = mesh_of(base.params)
    batch, read = base.batch(of_split.texts(rows)), compiled_once(method, "posterior", mesh)
    mean, std = (np.zeros((len(rows), method.latent_dim), np.float32) for _ in range(2))
    for places, real, width in turns(batch.valid.sum(-1), method.language.length, num_shards(mesh)):
        law = read(base.params, batch.tokens[places, :width], batch.valid[places, :width])
        mean[places[:real]], std[places[:real]] = law.mean[:real], law.std[:real]
    return Known(Normal(mean=jnp.asarray(mean), std=jnp.asarray(std)), np.asarray(of_split.labels[label][rows]))


def fitted(method: LatentClassifier, key: Any, law: Params, texts: Known) -> tuple[Params, dict[str, float]]:
    """Parameters, and how well each member tells the texts that it has not seen.

    Penalties are tried on TRIED of the texts, evenly taken; the best is then used with all.
    """
    start, noise = jax.random.split(key)
    fresh = method.init(start)["net"]
    whole = _seen(method, law, texts, noise)
    few = np.arange(min(TRIED, len(texts.value))) * len(texts.value) // min(TRIED, len(texts.value))
    part = Seen(whole.epsilon[:, few], whole.value[few], jnp.asarray(shares(texts.value[few], method.members)))
    tries = [_fit(method, part, fresh, penalty) for penalty in method.penalties]
    losses = [float(jnp.mean(log_loss(part.told(method, net), part.value))) for net in tries]
    penalty = method.penalties[int(np.argmin(losses))]
    net = _fit(method, whole, fresh, penalty)
    logits = whole.told(method, net)
    heats = [float(jnp.mean(log_loss(jax.nn.log_softmax(logits / heat), whole.value))) for heat in TEMPERATURES]
    temperature = float(TEMPERATURES[int(np.argmin(heats))])
    right = np.asarray(logits).argmax(-1) == texts.value
    return {"net": net, "temperature": jnp.float32(temperature), "frozen": {"law": law}}, {
        "log_loss": float(min(heats)),
        "accuracy": float(right.mean()),
        "penalty": penalty,
        "temperature": temperature,
    }


class Seen(NamedTuple):
    """Latents of texts, the value that each text has, and the member that does not see it."""

    epsilon: Float[Array, "s n z"]
    value: Int[Array, "n"]
    share: Int[Array, "n"]

    def told(self, method: LatentClassifier, net: Params) -> Float[Array, "s n c"]:
        """log p of each text's values, up to a constant, by the member that has not seen it."""
        logits = jnp.stack([method.logits(net, one) for one in self.epsilon])  # [s, m, n, c]
        own = (self.share[None] == jnp.arange(method.members)[:, None])[None, :, :, None]
        return jax.nn.log_softmax(jnp.sum(jnp.where(own, logits, 0.0), axis=1))


def _seen(method: LatentClassifier, law: Params, texts: Known, key: Any) -> Seen:
    epsilon = whitened_samples(law, texts.law, key, method.samples)
    return Seen(epsilon, jnp.asarray(texts.value), jnp.asarray(shares(texts.value, method.members)))


def _fit(method: LatentClassifier, texts: Seen, fresh: Params, penalty: float) -> Params:
    """All members at a penalty."""
    members = jnp.arange(method.members)
    return _members(method)(texts, fresh, members, jnp.float32(penalty))


@functools.lru_cache(maxsize=8)
def _members(method: LatentClassifier) -> Any:
    return jax.jit(jax.vmap(functools.partial(_fit_one, method), (None, 0, 0, None)))


def _fit_one(
    method: LatentClassifier, texts: Seen, net: Params, member: Int[Array, ""], penalty: Float[Array, ""]
) -> Params:
    """A member at a penalty, by L-BFGS on all texts but those of its share."""
    seen = (texts.share != member).astype(jnp.float32)

    def loss(net: Params) -> Float[Array, ""]:
        log_p = jax.nn.log_softmax(jax.vmap(method.net.bind(net))(texts.epsilon))
        weights = sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(net) if leaf.ndim > 1)
        return (jnp.mean(log_loss(log_p, texts.value) @ seen) + 0.5 * penalty * weights) / jnp.sum(seen)

    solver = optax.lbfgs()
    value_and_grad = optax.value_and_grad_from_state(loss)

    def step(carry: tuple[Params, Any], _: None) -> tuple[tuple[Params, Any], None]:
        net, state = carry
        nats, gradient = value_and_grad(net, state=state)
        updates, state = solver.update(gradient, state, net, value=nats, grad=gradient, value_fn=loss)
        moved: Any = optax.apply_updates(net, updates)
        return (moved, state), None

    return jax.lax.scan(step, (net, solver.init(net)), None, length=method.rounds)[0][0]


def whitened_samples(law: Params, of_texts: Normal, key: Any, num: int) -> Float[Array, "s n z"]:
    """`num` latents of each text, drawn from its own law, in the coordinates in which the initial law is N(0, I)."""
    return jnp.stack([whitened(law, of_texts.sample(jax.random.fold_in(key, i))) for i in range(num)])


def shares(value: Int[np.ndarray, "n"], num: int) -> Int[np.ndarray, "n"]:
    """Which of `num` shares each text belongs to, every share with as many of each value as the next."""
    share = np.zeros(len(value), int)
    for one in np.unique(value):
        rows = np.flatnonzero(value == one)
        share[rows] = np.arange(len(rows)) % num
    return share


def told_of(method: LatentClassifier, params: Params, texts: Known) -> dict[str, float]:
    """How often the middle of a text's latents tells its value, and how far how sure it is lies from that."""
    log_p = np.asarray(method.log_p(params, whitened(params["frozen"]["law"], texts.law.mean)))
    right = log_p.argmax(-1) == texts.value
    apart = calibration_error(np.exp(log_p.max(-1)), right)
    return {"valid_accuracy": float(right.mean()), "valid_calibration_error": apart}


def calibration_error(sure: Float[np.ndarray, "n"], right: Any, bins: int = 15) -> float:
    """How far how sure one was lies from how often one was right, in the mean over `bins` (Guo et al. 2017)."""
    at = np.minimum((sure * bins).astype(int), bins - 1)
    apart = [abs(sure[at == i].mean() - right[at == i].mean()) * np.mean(at == i) for i in np.unique(at)]
    return float(np.sum(apart))


def of_text(corpus: Corpus, method: LatentClassifier) -> float:
    """The accuracy on valid of a classifier that knows n-grams, and no latents, of the same labelled texts."""
    train, valid = corpus.splits["train"], corpus.splits["valid"]
    rows, asked = train.evenly(method.most), valid.evenly(VALID)
    judge = learn(train.texts(rows), train.labels[method.label][rows], len(method.values))
    return float(np.mean(judge.values(valid.texts(asked)) == valid.labels[method.label][asked]))
