"""Reconstruction and KL of a text VAE."""

import jax
import numpy as np
from jaxtyping import Float

from jtextdiff.cli.output import say
from jtextdiff.data.batches import Batch
from jtextdiff.devices.sharding import mesh_of
from jtextdiff.evaluation.score import Score, mean_score, reference, score
from jtextdiff.inference.batched import LengthBucket, jitted, map_batches
from jtextdiff.inference.model import Model
from jtextdiff.methods.components.latents import collapse_warnings
from jtextdiff.metrics.bleu import corpus_bleu

TERMS = {
    "kl": "KL(q(z | text) ‖ N(0, I))",
    "reconstruction": "−log p(text | z) of a z of the text's own",
    "shuffled": "the same of another text's z: the higher, the more the decoder uses the latent",
}
LEVEL_TERMS = {
    "kl": "KL of level {} given the levels below it",
    "shuffled": "−log p(text | z) with level {} alone of another text: the higher, the more the decoder uses it",
}


def latent_scores(model: Model, texts: list[str], seed: int) -> dict[str, Score]:
    """Returns how well greedy decoding from the mean of q(z | text) restores texts, and the terms of the ELBO."""
    restored = [edit.text for edit in model.edit_texts(texts, seed=seed, name="greedy", beams=1)]
    terms = elbo_terms(model, texts, seed)
    kinds = TERMS | {
        f"{name}_{level}": LEVEL_TERMS[name].format(level)
        for name, level in (term.split("_") for term in terms if term not in TERMS)
    }
    scores = {name: mean_score(terms[name].tolist(), "nats/text", kind) for name, kind in kinds.items()}
    for warning in collapse_warnings({name: of_term["value"] for name, of_term in scores.items()}):
        say(warning)
    bleu = 100 * corpus_bleu(restored, texts)
    kind = "corpus BLEU-4 of texts decoded greedily from their latents"
    exact = [float(copy == text) for copy, text in zip(restored, texts, strict=True)]
    return {
        "reconstruction_bleu": score(bleu, "0 to 100", None, len(texts), kind) | reference(100.0, None),
        "reconstruction_exact": mean_score(exact, "share", "word for word") | reference(1.0, None),
        **{name: of_term | reference(None, None) for name, of_term in scores.items()},
    }


def elbo_terms(model: Model, texts: list[str], seed: int) -> dict[str, Float[np.ndarray, "n"]]:
    """Returns nats per text, see `TextVAE.elbo_terms`."""
    longest, key = model.method.text_spec.length, jax.random.key(seed)
    compute = jitted(model.method, "elbo_terms", mesh_of(model.params))

    def of_batch(bucket: LengthBucket, batch: Batch) -> dict[str, Float[np.ndarray, "b"]]:
        return compute(model.params, jax.random.fold_in(key, bucket.number), batch)

    return map_batches(of_batch, model.batch(texts), np.full(len(texts), longest), longest=longest)
