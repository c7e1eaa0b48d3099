"""What a text VAE's latents hold: how well texts come back from them, at what divergence, and where they lie."""

import jax
import numpy as np

from jtextdiff.cli.output import say
from jtextdiff.devices.sharding import mesh_of
from jtextdiff.evaluation.score import Score, beside, figure, mean
from jtextdiff.inference.batched import compiled_once, turns
from jtextdiff.inference.model import Model
from jtextdiff.methods.components.latents import collapse_warning
from jtextdiff.metrics.bleu import corpus_bleu


def latent_scores(model: Model, texts: list[str], seed: int) -> dict[str, Score]:
    """Reconstruction by greedy writing from the middle of q(z | text), divergence, the loss of other texts' latents."""
    back = model.edit(texts, seed=seed, name="greedy", beams=1)
    found = {name: mean(values.tolist(), *_told(name)) for name, values in watched(model, texts, seed).items()}
    if warning := collapse_warning(found["kl"]["value"]):
        say(warning)
    bleu = 100 * corpus_bleu(back, texts)
    kind = "corpus BLEU-4 of texts written back greedily from their latents"
    same = [float(one == other) for one, other in zip(back, texts, strict=True)]
    return {
        "reconstruction_bleu": figure(bleu, "0 to 100", None, len(texts), kind) | beside(100.0, None),
        "reconstruction_exact": mean(same, "share", "word for word") | beside(1.0, None),
        **{name: score | beside(None, None) for name, score in found.items()},
    }


def watched(model: Model, texts: list[str], seed: int) -> dict[str, np.ndarray]:
    """Nats a text: `kl`, `reconstruction` from its own z, `shuffled` from another text's."""
    batch, longest = model.batch(texts), model.method.language.length
    rows_of: dict[str, np.ndarray] = {}
    told = compiled_once(model.method, "watched", mesh_of(model.params))
    for turn, (rows, real, _) in enumerate(turns(np.full(len(texts), longest), longest)):
        cut = jax.tree.map(lambda leaf, rows=rows: leaf[rows], batch)
        key = jax.random.fold_in(jax.random.key(seed), turn)
        for name, values in told(model.params, key, cut).items():
            rows_of.setdefault(name, np.zeros(len(texts)))[rows[:real]] = np.asarray(values)[:real]
    return rows_of


def _told(name: str) -> tuple[str, str]:
    kinds = {
        "kl": "KL(q(z | text) ‖ N(0, I))",
        "reconstruction": "−log p(text | z) of a z of the text's own",
        "shuffled": "the same of another text's z: the higher, the more the latent is heard",
    }
    return "nats/text", kinds[name]
