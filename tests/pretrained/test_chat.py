"""Questions to imported models, by the chat template of their tokenizer."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
import transformers
from support.published import write_tokenizer
from support.published_llama import MASK, MASKED_WORDS, config_json, write_checkpoint

import jtextdiff as jtd
from jtextdiff.cli.errors import UserError
from jtextdiff.data.tokenizer import Tokenizer
from jtextdiff.inference.model import Model
from jtextdiff.inference.prompts import read_chat
from jtextdiff.sample import command

TURN = "<turn>"
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %} {{ m['role'] == 'user' and 'The' or 'it' }} {{ m['content'] | trim }}"
    + TURN
    + "{% endfor %}{% if add_generation_prompt %} it{% endif %}"
)
EOS, PAD, THE, SWAN, TURN_ID, IT = 1, 0, 3, 5, 14, 18
PROMPT = [EOS, THE, SWAN, TURN_ID, IT]
"""The ids of the question "Swan"."""


@pytest.fixture
def model(tmp_path: Path) -> Model:
    words = [TURN if word == "a" else word for word in MASKED_WORDS]
    write_checkpoint(tmp_path, config_json("llada"))
    write_tokenizer(tmp_path, words)
    special = {"id": TURN_ID, "content": TURN, "single_word": False, "lstrip": False, "rstrip": False}
    specials = [special | {"normalized": False, "special": True}]
    specials += [specials[0] | {"id": EOS, "content": "<eos>"}]
    file = tmp_path / "tokenizer.json"
    file.write_text(
        json.dumps(json.loads(file.read_text()) | {"added_tokens": sorted(specials, key=lambda t: t["id"])})
    )
    file = tmp_path / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"chat_template": TEMPLATE, "bos_token": "<eos>"}))
    return jtd.from_pretrained(tmp_path)


def test_the_prompt_is_that_of_the_template_and_the_answer_ends_at_the_end_of_turn(
    model: Model, tmp_path: Path
) -> None:
    pytest.importorskip("jinja2")
    ids, ends = model.tokenizer.encode_chat(" Swan ")
    assert ids.tolist() == PROMPT and ends == {EOS, PAD, TURN_ID}
    asked = [{"role": "user", "content": " Swan "}]
    published = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert published.apply_chat_template(asked, add_generation_prompt=True, return_dict=False) == PROMPT
    chat = read_chat("Swan", model.tokenizer, model.method, 2, 4)
    assert chat.given.tokens.shape == (2, 10)
    np.testing.assert_array_equal(chat.given.fixed[1], [True] * 5 + [False] * 4 + [True])
    for tokens, answer in (
        ([8, 9, TURN_ID, 7, EOS], [8, 9]),
        ([8, PAD, 7, 7, EOS], [8]),
        ([8, 9, 7, 7, EOS], [8, 9, 7, 7]),
    ):
        assert chat.answer(np.asarray(PROMPT + tokens)).tolist() == answer


def test_prompts_are_held_and_answers_may_end_anywhere(model: Model) -> None:
    pytest.importorskip("jinja2")
    chat = read_chat("Swan", model.tokenizer, model.method, 64, 4)
    keys = jax.random.split(jax.random.key(0), 64)
    tokens = np.asarray(jax.jit(chat.method.sample)(model.params, keys, chat.given).tokens)
    assert np.all(tokens[:, :5] == PROMPT) and np.all(tokens[:, -1] == EOS)
    inside = tokens[:, 5:9]
    assert not np.any(inside == MASK) and {EOS, PAD, TURN_ID} <= set(inside.ravel().tolist())


def test_the_command_answers_by_a_saved_tokenizer_too(
    model: Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("jinja2")
    command(["--checkpoint", str(tmp_path), "--num", "2", "--chat", "Swan", "--answer_length", "4"])
    answers = capsys.readouterr().out.splitlines()
    assert answers == model.chat("Swan", 2, length=4)
    model.tokenizer.save(tmp_path / "saved")
    again = Tokenizer.load(tmp_path / "saved")
    assert again.chat == model.tokenizer.chat and again.encode_chat("Swan")[0].tolist() == PROMPT


def test_what_cannot_be_answered_is_named(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="spells '<turn>', a special token"):
        model.chat("Swan <turn> it")
    with pytest.raises(UserError, match="The question is ' '; expected a text that asks something"):
        model.chat(" ")
    missing = "transformers.utils.chat_template_utils.render_jinja_template"

    def not_installed(*args: object, **settings: object) -> None:
        raise ImportError("no jinja2")

    with monkeypatch.context() as patched, pytest.raises(UserError, match=r"need jinja2: pip install -e '\.\[chat\]'"):
        patched.setattr(missing, not_installed)
        model.chat("Swan")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["--chat", "Swan", "--template", "[MASK]"],
            "draws each answer once, from the question alone: leave out --temp",
        ),
        (["--chat", " "], "--chat needs a question, got ' '"),
        (["--chat", "Swan", "--answer_length", "0"], "--answer_length must be at least 1, got 0"),
        (["--answer_length", "8"], "--answer_length is the length of an answer: add --chat QUESTION"),
    ],
)
def test_flags_that_make_no_chat_are_named_before_anything_is_read(flags: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        command(["--checkpoint", "run", *flags])


def test_special_tokens_of_texts_stay_texts_after_a_prompt_that_fails(model: Model) -> None:
    pytest.importorskip("jinja2")
    with pytest.raises(TypeError):
        model.tokenizer.encode_chat("\ud800")
    assert model.tokenizer.backend.encode_special_tokens


def test_a_template_runs_in_a_sandbox(model: Model) -> None:
    pytest.importorskip("jinja2")
    for template, message in (
        ("{{ messages.__class__.__mro__ }}", "cannot be rendered.*unsafe"),
        ("{{ messages.append(1) }}", "cannot be rendered.*unsafe"),
        ("{% if %}", "cannot be rendered"),
        ("{{ raise_exception('no system role') }}", "no system role"),
        ("{{ messages[0]['content'] }}<turn>", "does not render the question or the answer"),
        ("{{ messages[1]['content'] if messages[1] }}<turn>", "does not render the question or the answer"),
    ):
        object.__setattr__(model.tokenizer, "chat", model.tokenizer.chat._replace(template=template))  # pyright: ignore
        with pytest.raises(UserError, match=message):
            model.chat("Swan")


def test_a_question_needs_a_template_and_room(model: Model, tmp_path: Path) -> None:
    """A model that can generate longer texts is loaded for them; this one has 12 positions."""
    pytest.importorskip("jinja2")
    with pytest.raises(
        UserError, match="has 5 tokens, the answer 7 and its end one.* 12. Ask for a shorter answer\\.$"
    ):
        model.chat("Swan", length=7)
    short = jtd.from_pretrained(tmp_path, overrides=["text.length=10"])
    with pytest.raises(UserError, match="a published checkpoint with --override text.length=11"):
        short.chat("Swan", length=5)
    object.__setattr__(model.tokenizer, "chat", None)
    with pytest.raises(UserError, match="no chat template"):
        model.chat("Swan")
