"""A text VAE whose decoder starts from GPT-2, or whose encoder starts from BERT."""

import dataclasses
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import published_bert, published_gpt2
from support.command_line import Completed, run
from support.runs import ROOT, write_texts

import jtextdiff as jtd
from jtextdiff.methods.components.types import TextSpec
from jtextdiff.methods.text_vae import TextVAE
from jtextdiff.nets.transformer import Transformer
from jtextdiff.pretrained.families import network_of, open_source
from jtextdiff.pretrained.parts import STORED, with_part
from jtextdiff.pretrained.vocabulary import take_rows

TEXT_SPEC = TextSpec(vocab_size=20, mask=20, pad=0, eos=1, unk=2, length=8, length_counts=(0,) * 8 + (1,))
SMALL = Transformer(num_layers=1, width=8, num_heads=2)
TOYS = {"decoder": published_gpt2, "encoder": published_bert}


@pytest.mark.parametrize("part", TOYS)
def test_a_part_has_the_arrays_of_the_checkpoint_and_all_else_stays(part: str, tmp_path: Path) -> None:
    TOYS[part].write_checkpoint(tmp_path, TOYS[part].config_json())
    checkpoint = open_source(tmp_path)
    network = network_of(checkpoint)
    read = lambda name: take_rows(name, checkpoint.read(network.prefix + name), TEXT_SPEC)
    whole = network.fold(read, lambda name, array: array)
    trunks = {"encoder": SMALL, "decoder": dataclasses.replace(SMALL, causal=True)} | {
        part: Transformer(**network.settings["trunk"])
    }
    shapes = jax.eval_shape(TextVAE(text_spec=TEXT_SPEC, **trunks).init, jax.random.key(0))
    fresh = jax.tree.map(lambda array: jnp.full(array.shape, 7.0), shapes)
    params = with_part(fresh, network, read)
    assert jax.tree.map(np.shape, params) == jax.tree.map(np.shape, fresh)
    name = STORED[part]
    changed, before = params.pop(name), fresh.pop(name)
    jax.tree.map(np.testing.assert_array_equal, params, fresh)
    jax.tree.map(np.testing.assert_array_equal, changed.pop("trunk"), whole["trunk"])
    table, other = changed.pop("embed")["embedding"], before.pop("embed")["embedding"]
    np.testing.assert_array_equal(table[:20], whole["embed"]["embedding"][:20])
    if part == "decoder":
        np.testing.assert_array_equal(table[20], other[20])  # MASK, which GPT-2 lacks
        np.testing.assert_array_equal(changed["answer"].pop("kernel"), table[:20].T)
        before["answer"].pop("kernel")
    before.pop("trunk")
    jax.tree.map(np.testing.assert_array_equal, changed, before)


def start(folder: Path, *more: str, steps: int = 0) -> Completed:
    flags = [f"--config={ROOT}/configs/latent_ops.py", "--config.init=checkpoint", "--workdir=run"]
    flags += ["--config.text.path=texts.txt", f"--config.num_steps={steps}", "--config.batch_size=16"]
    small = [f"--config.method.{part}.{name}" for part in TOYS for name in ("num_layers=1", "width=32", "num_heads=2")]
    return run("train", *flags, *small, *more, cwd=folder)


@pytest.mark.slow
@pytest.mark.parametrize("part", TOYS)
def test_a_run_starts_with_the_part_and_keeps_its_network(part: str, tmp_path: Path) -> None:
    write_texts(tmp_path)
    TOYS[part].write_checkpoint(tmp_path / "checkpoint", TOYS[part].config_json())
    done = start(tmp_path, "--config.text.tokenizer=pretrained:of_the_other_part")
    assert done.returncode == 0 and "Starting from the" in done.stderr, done.stderr
    whole, model = jtd.from_pretrained(tmp_path / "checkpoint"), jtd.load(tmp_path / "run")
    jax.tree.map(np.testing.assert_array_equal, model.params[STORED[part]]["trunk"], whole.params["trunk"])
    assert getattr(model.method, part) == whole.method.trunk
    other = next(name for name in TOYS if name != part)
    assert getattr(model.method, other).width == 32
    shutil.rmtree(tmp_path / "checkpoint")  # it is needed no more
    done = start(tmp_path, steps=2)
    assert done.returncode == 0 and "Resuming from step 0 of run." in done.stderr, done.stderr
    done = run("sample", "--checkpoint=run", "--num=2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    write_texts(tmp_path)
    published_gpt2.write_checkpoint(tmp_path / "checkpoint", published_gpt2.config_json(n_positions=11))
    done = start(tmp_path)
    message = "up to 8 tokens after 4 of memory, the network positions for 11. Set --config.text.length=7."
    assert done.returncode == 2 and message in done.stderr, done.stderr
