"""Words that speak against the controls are replaced by those that trigrams of the wanted values expect."""

from types import SimpleNamespace
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from jtextdiff.inference.editing.replacements import (
    LEAST_AGAINST,
    MAX_REPLACED,
    MAX_WEIGHT,
    _places,
    _replace,
    _terms,
    replace_words,
)
from jtextdiff.metrics.trigram_classifier import TrigramClassifier, fit_each
from jtextdiff.sampling.energies import Not, Sum
from jtextdiff.sampling.phrases import WordEnergy

PAD, EOS, UNK = 0, 1, 2
NAMES = ["", "", "?", "the", "food", "was", "bad", "good", "cold", "warm", "staff", "rude", "kind", "and", "our"]
VOCAB = len(NAMES)
TEXTS = {
    "bad": ["the food was bad", "the food was cold", "the staff was rude", "the staff was rude and bad"],
    "good": [
        "the food was good",
        "the food was warm",
        "the staff was kind",
        "the staff was kind and good",
        "the ?",
        "our staff was kind",
    ],
}
TOKENIZER: Any = SimpleNamespace(eos=EOS, unk=UNK, pad=PAD)


def tokens_of(text: str) -> tuple[int, ...]:
    return tuple(NAMES.index(word) for word in text.split())


def text_of(tokens: tuple[int, ...]) -> str:
    return " ".join(NAMES[token] for token in tokens)


def classifier(texts: dict[str, list[str]]) -> TrigramClassifier:
    of_texts = [(tokens_of(text), number) for number, key in enumerate(texts) for text in texts[key]]
    tokens = np.asarray([[*text, EOS, *[PAD] * (7 - len(text))] for text, _ in of_texts])
    valid = np.arange(8) <= np.asarray([[len(text)] for text, _ in of_texts])
    value = np.asarray([number for _, number in of_texts])
    return TrigramClassifier(fit_each(tokens, valid, value, len(texts), VOCAB), 0.5, np.zeros(len(texts)))


def weights(*for_good: str, against: tuple[str, ...] = ()) -> Any:
    of_good = np.asarray([float(name in for_good) - (name in against) for name in NAMES])
    return jnp.asarray(np.stack([-of_good, of_good], -1))


def energy(*target: bool, label: str = "mood", words: Any = None) -> WordEnergy:
    words = weights("good", "warm", "kind", against=("bad", "cold", "rude")) if words is None else words
    return WordEnergy(weights=words, bias=jnp.zeros(2), factor=jnp.ones(()), target=jnp.asarray(target), label=label)


def readings(*energies: Any, labels: tuple[str, ...] = ("mood",)) -> Any:
    trigrams = tuple(classifier(TEXTS) for _ in labels)
    total = Sum(energies=energies, weights=(1.0,) * len(energies))
    return SimpleNamespace(energy=total, labels=labels, trigrams=trigrams, neutral=np.ones(VOCAB))


@pytest.mark.parametrize(
    ("control", "text", "value"),
    [
        (energy(False, True), "the staff was rude", "good"),
        (energy(False, True), "the food was cold", "good"),
        (energy(True, False), "the staff was kind and good", "bad"),
        (Not(energy=energy(True, False)), "the staff was rude", "good"),
    ],
)
def test_words_against_a_control_become_those_that_texts_of_its_value_have_there(
    control: Any, text: str, value: str
) -> None:
    (replaced,) = replace_words([tokens_of(text)], readings(control), TOKENIZER)
    assert text_of(replaced) in TEXTS[value]


def test_a_text_that_nothing_speaks_against_stays() -> None:
    text = tokens_of("the staff was kind")
    assert replace_words([text], readings(energy(False, True)), TOKENIZER) == [text]
    assert replace_words([text], readings(energy(True, True)), TOKENIZER) == [text], "any text has the control"


def test_texts_are_replaced_as_each_alone() -> None:
    texts = [tokens_of(text) for text in (*TEXTS["bad"], *TEXTS["good"][:4], "rude", "and bad food was cold")]
    of_mood = readings(energy(False, True))
    together = replace_words(texts, of_mood, TOKENIZER)
    assert together == [replace_words([text], of_mood, TOKENIZER)[0] for text in texts]
    assert all(len(new) == len(text) for new, text in zip(together, texts, strict=True))
    assert not any({EOS, UNK, PAD} & set(text) for text in together)


def test_two_controls_replace_the_words_of_both() -> None:
    """Words for the one label are against no value of the other, whose trigrams are the same here."""
    other = energy(False, True, label="other", words=weights("kind", against=("rude",)))
    both = readings(energy(False, True), other, labels=("mood", "other"))
    (replaced,) = replace_words([tokens_of("the staff was rude and bad")], both, TOKENIZER)
    assert text_of(replaced) == "the staff was kind and good"


def test_the_words_that_speak_most_against_it_are_replaced_from_left_to_right() -> None:
    text = tokens_of("bad cold rude bad cold rude bad")
    tokens = np.asarray([[VOCAB, VOCAB, *text, EOS, EOS], [VOCAB, VOCAB, *tokens_of("the good"), *[EOS] * 7]])
    of_mood = _terms(readings(energy(False, True)))
    steps = [(rows.tolist(), places.tolist()) for rows, places in _places(of_mood, tokens, np.asarray([7, 2]))]
    assert len(steps) == MAX_REPLACED and all(rows == [0] for rows, _ in steps)
    places = [place for _, (place,) in steps]
    assert places == sorted(set(places)) and min(places) >= 2 and max(places) <= 8


def test_a_word_is_replaced_if_the_mean_of_word_and_trigrams_is_against() -> None:
    """Trigrams of both values alike leave the word alone to decide."""
    alike = {"bad": ["the food was bad"], "good": ["the food was bad"]}
    for against, num in ((2.1 * LEAST_AGAINST, 1), (1.9 * LEAST_AGAINST, 0)):
        words = jnp.zeros((VOCAB, 2)).at[NAMES.index("bad"), 0].set(against)
        of_mood = readings(energy(False, True, words=words))
        of_mood.trigrams = (classifier(alike),)
        tokens = np.asarray([[VOCAB, VOCAB, *tokens_of("the food was bad"), EOS, EOS]])
        found = [rows for rows, _ in _places(_terms(of_mood), tokens, np.asarray([4])) if len(rows)]
        assert len(found) == num


def padded(*texts: tuple[int, ...]) -> np.ndarray:
    """Rows as trigrams see them: two tokens before a text, and EOS after it."""
    longest = max(map(len, texts))
    return np.asarray([[VOCAB, VOCAB, *text, *[EOS] * (longest + 2 - len(text))] for text in texts])


@pytest.mark.parametrize("favoured", [None, "good", "warm"])
@pytest.mark.parametrize("source", ["the staff was rude and bad", "the food was bad"])
def test_the_new_word_makes_the_text_most_probable_with_its_weight(source: str, favoured: str | None) -> None:
    """By the nats of whole texts, at each place of a text, of all words that followed the one before."""
    words = jnp.zeros((VOCAB, 2))
    words = words if favoured is None else words.at[NAMES.index(favoured), 1].set(2 * MAX_WEIGHT)
    terms, text = _terms(readings(energy(False, True, words=words))), tokens_of(source)
    wanted = terms[0].wanted[0]

    def score(word: int, place: int) -> float:
        tokens = np.asarray([[*text[:place], word, *text[place + 1 :], EOS]])
        return min(float(terms[0].weights[word]), MAX_WEIGHT) - float(wanted.nll(tokens, np.ones_like(tokens, bool))[0])

    for place in range(len(text)):
        tokens = padded(text)
        _replace(terms, tokens, np.asarray([0]), np.asarray([place + 2]), [EOS, UNK])
        followers = wanted.followers(padded(text)[0, [place + 1]], -np.inf)[1]
        scores = [score(word, place) for word in followers.tolist() if word not in (EOS, UNK, text[place])]
        new = int(tokens[0, place + 2])
        assert new == text[place] if not scores else score(new, place) == pytest.approx(max(scores))
        assert new != text[place] or not scores


def test_a_word_speaks_against_a_control_by_its_weight_and_its_trigrams() -> None:
    """By hand, for texts of different lengths; the first of them are those that speak most."""
    texts = [tokens_of("the staff was rude"), tokens_of("the food was cold and bad")]
    (term,) = _terms(readings(energy(False, True)))
    steps = list(_places([term], padded(*texts), np.asarray([4, 6])))
    found = {(row, place - 2) for of, at in steps for row, place in zip(of.tolist(), at.tolist(), strict=True)}
    expected = set()
    for row, text in enumerate(texts):
        threes = [padded(text)[0, end - 2 : end + 1] for end in range(2, len(text) + 3)]
        of_each = [float(term.wanted[0].log_p(*three) - term.others[0].log_p(*three)) for three in threes]
        of_words = [float(term.weights[word]) for word in text]
        against = [
            -(of_word + term.factor * sum(of_each[place : place + 3])) / 2 for place, of_word in enumerate(of_words)
        ]
        most = sorted(range(len(text)), key=against.__getitem__)[-MAX_REPLACED:]
        expected |= {(row, place) for place in most if against[place] > LEAST_AGAINST}
    assert found == expected and len(expected) > 3


def test_a_control_of_little_weight_replaces_nothing() -> None:
    of_mood = readings(energy(False, True))
    text = tokens_of("the staff was rude")
    assert replace_words([text], of_mood, TOKENIZER) != [text]
    of_mood.energy = Sum(energies=of_mood.energy.energies, weights=(0.01,))
    assert replace_words([text], of_mood, TOKENIZER) == [text]
