"""A learned field of a text VAE: an ODE from the latents of a label's other values to those of one value.

python -m jtextdiff.train --config configs/flow.py --config.base=runs/latent_ops --config.label=sentiment
python -m jtextdiff.edit --checkpoint runs/latent_ops --input texts.txt --control sentiment=positive --learned

It is fitted in minutes and stored in BASE/flows/LABEL. Edits also need a control of the label, configs/control.py,
whose classifier decides where they stop. A `method.velocity` of "shift" or "normal" needs no network: the field is then
the difference of the means, or the flow of two normal distributions. With a file of reference edits (JSON lines
of text, wanted and reference), the field leads from texts to their edits:

python -m jtextdiff.train --config configs/flow.py --config.base=runs/latent_ops --config.label=sentiment \
    --config.method.coupling=paired --config.references=edits.jsonl

The fields are explained in jtextdiff/methods/latent_field.py, the common ones in jtextdiff/run/config_files.py.
"""

from ml_collections.config_dict import placeholder

from jtextdiff.methods.latent_field import LatentField
from jtextdiff.run.config import Config, spec
from jtextdiff.run.config_files import base_config, choose_preset
from jtextdiff.training.optimizer import Optimizer


def get_config(preset: str = "") -> Config:
    return choose_preset(preset, {"": default})()


def default() -> Config:
    c = base_config(spec(LatentField), spec(Optimizer), num_steps=1, batch_size=64)
    for name, kind in (("tokenizer", str), ("length", int), ("buckets", int)):
        c.text[name] = placeholder(kind)  # that of the base
    c.base = placeholder(str)  # the run whose latents are moved
    c.label = placeholder(str)  # a label of the text, such as sentiment
    c.num_labelled = placeholder(int)  # labelled texts of each value to learn from; unset: all
    c.references = placeholder(str)  # a file of texts and edits of them, for method.coupling="paired"
    return c
