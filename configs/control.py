"""A control: a classifier of a trained model's noisy states, which then guides its samples.

python -m jtextdiff.train --config configs/control.py --config.base=runs/diffusion_lm --config.label=food
python -m jtextdiff.sample --checkpoint runs/diffusion_lm --control food=Japanese

It is stored in BASE/controls/LABEL. Its text is the base's, unless text.path names another, with its own labels. Texts
without the label have the value "none". Where most texts are unlabelled, name a file of those that have the label.
The grammar's texts have two more labels: pos, the part of speech of every word, and tree, the constituent of every span
of words.

For a text VAE the control is a classifier of latents, whose fields are `latent`; for masked diffusion, absorbing D3PM
and CMLM it is one of words, whose fields are `words`. Both are fitted in seconds, from a few hundred labelled texts. A
control of latents learns words and trigrams from texts without a label, too (`latent.max_unlabelled`), for its edits.

python -m jtextdiff.train --config configs/control.py --config.base=runs/latent_ops --config.label=sentiment \\
    --config.num_labelled=200

The fields are explained in jtextdiff/methods/classifier.py, latent_classifier.py and word_classifier.py, the common
ones in jtextdiff/run/config_files.py.
"""

from ml_collections.config_dict import placeholder

from jtextdiff.methods.classifier import Classifier
from jtextdiff.methods.latent_classifier import LatentClassifier
from jtextdiff.methods.word_classifier import WordClassifier
from jtextdiff.nets.transformer import Transformer
from jtextdiff.run.config import Config, spec
from jtextdiff.run.config_files import base_config, choose_preset
from jtextdiff.training.optimizer import Optimizer


def get_config(preset: str = "") -> Config:
    presets = {"": default, "paper": paper, "paper_pos": paper_pos, "paper_tree": paper_tree}
    return choose_preset(preset, presets)()


def default() -> Config:
    c = base_config(spec(Classifier), spec(Optimizer), num_steps=2_000, batch_size=64, sample=2_000)
    for name, kind in (("tokenizer", str), ("length", int), ("buckets", int)):
        c.text[name] = placeholder(kind)  # that of the base
    c.base = placeholder(str)  # the run that is controlled
    c.label = placeholder(str)  # a label of the text, such as food
    c.num_labelled = placeholder(int)  # labelled texts of each value to learn from, of pos and tree in all; unset: all
    c.latent = spec(LatentClassifier)  # used instead of `method` for a text VAE …
    c.words = spec(WordClassifier)  # … and for masked diffusion, absorbing D3PM and CMLM
    return c


def paper() -> Config:
    """As released for attributes, except that the released classifier learned to generate the words of a value.

    The released guidance has one constant for fluency here, .01; the release had others for other controls. `weight`
    is equivalent, as is the weight given with a control: a span is read from the classifier of trees with 1/10 of its
    energy, which is `span=4-6:landmark*10.4` here.
    """
    c = default()
    c.num_steps, c.batch_size = 25_000, 10
    c.method = spec(Classifier, trunk=Transformer(num_layers=12, width=768, num_heads=12, norm="post", dropout=0.1))
    c.optim = spec(Optimizer, peak=5e-5, warmup=0, decay="linear", b2=0.999, weight_decay=0.0, ema=0.0)
    return c


def paper_pos() -> Config:
    """Parts of speech: a mean over 64 words, relative to fluency of 1e-4."""
    c = paper()
    c.method.weight = 0.01 / 1e-4 / 64
    return c


def paper_tree() -> Config:
    """Trees: a mean over the 2,080 spans of 64 words, relative to fluency of 5e-4."""
    c = paper()
    c.num_steps, c.batch_size = 26_000, 32
    c.method.weight = 0.01 / 5e-4 / 2_080
    return c
