"""Words that speak against the controls are replaced by similar ones that speak for them and fit where they stand."""

import itertools
from types import SimpleNamespace
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from jtextdiff.inference.editing.replacements import (
    LEAST_AGAINST,
    MAX_REPLACED,
    MAX_WEIGHT,
    SIMILARITY_WEIGHT,
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
    return SimpleNamespace(
        energy=total, labels=labels, trigrams=trigrams, neutral=np.ones(VOCAB), vectors=np.eye(VOCAB)
    )


def similar(*pairs: tuple[str, str]) -> np.ndarray:
    """Vectors of length 1 that are the same for the words of each pair, else unrelated."""
    vectors = np.eye(VOCAB)
    for one, other in pairs:
        vectors[NAMES.index(other)] = vectors[NAMES.index(one)]
    return vectors


def replaced(text: str, of: Any, vectors: np.ndarray | None = None) -> list[str]:
    """Without `vectors` no two words are similar."""
    of.vectors = of.vectors if vectors is None else vectors
    (texts,) = replace_words([tokens_of(text)], of, TOKENIZER)
    return list(map(text_of, texts))


@pytest.mark.parametrize(
    ("control", "text", "expected"),
    [
        (energy(False, True), "the staff was rude", "the staff was kind"),
        (energy(False, True), "the food was cold", "the food was warm"),
        (energy(True, False), "the staff was kind and good", "the staff was rude and bad"),
        (Not(energy=energy(True, False)), "the staff was rude", "the staff was kind"),
    ],
)
def test_words_against_a_control_become_similar_ones_for_it(control: Any, text: str, expected: str) -> None:
    vectors = similar(("bad", "good"), ("cold", "warm"), ("rude", "kind"))
    assert replaced(text, readings(control), vectors)[-1] == expected


def test_without_similar_words_trigrams_decide() -> None:
    assert replaced("the staff was rude", readings(energy(False, True))) == ["the staff was kind"]
    to_warm = similar(("rude", "warm"))
    assert replaced("the staff was rude", readings(energy(False, True)), to_warm) == ["the staff was warm"]


def test_a_text_that_nothing_speaks_against_has_none() -> None:
    assert replaced("the staff was kind", readings(energy(False, True))) == []
    assert replaced("the staff was kind", readings(energy(True, True))) == [], "any text has the control"
    assert replaced("the staff was rude", readings(energy(False, True, words=jnp.zeros((VOCAB, 2))))) == []


def test_texts_are_replaced_as_each_alone_at_their_length() -> None:
    texts = [tokens_of(text) for text in (*TEXTS["bad"], *TEXTS["good"][:4], "rude", "and bad food was cold")]
    of_mood = readings(energy(False, True))
    together = replace_words(texts, of_mood, TOKENIZER)
    assert together == [replace_words([text], of_mood, TOKENIZER)[0] for text in texts]
    for source, of_text in zip(texts, together, strict=True):
        assert all(len(new) == len(source) and not {EOS, UNK, PAD} & set(new) for new in of_text)


def test_two_controls_replace_the_words_of_both() -> None:
    """Words for the one label are against no value of the other, whose trigrams are the same here."""
    other = energy(False, True, label="other", words=weights("kind", against=("rude",)))
    both = readings(energy(False, True), other, labels=("mood", "other"))
    assert replaced("the staff was rude and bad", both)[-1] == "the staff was kind and good"


def test_every_set_of_the_words_that_speak_most_against_it_is_replaced() -> None:
    against = {"bad": 0.5, "cold": 1.0, "rude": 2.0}
    words = jnp.zeros((VOCAB, 2)).at[NAMES.index("good"), 1].set(1.0)
    for word, nats in against.items():
        words = words.at[NAMES.index(word), 0].set(nats)
    source = ["rude", "bad", "food", "cold", "rude", "rude", "bad", "cold"][: MAX_REPLACED + 3]
    found = replaced(" ".join(source), readings(energy(False, True, words=words)))
    most = sorted(range(len(source)), key=lambda place: -against.get(source[place], 0.0))[:MAX_REPLACED]
    sets = [set(chosen) for size in range(1, MAX_REPLACED + 1) for chosen in itertools.combinations(most, size)]
    expected = {" ".join("good" if at in chosen else word for at, word in enumerate(source)) for chosen in sets}
    assert set(found) == expected and len(found) == 2**MAX_REPLACED - 1


def test_a_word_is_replaced_if_its_weight_is_against() -> None:
    for against, num in ((1.1 * LEAST_AGAINST, 1), (0.9 * LEAST_AGAINST, 0)):
        words = jnp.zeros((VOCAB, 2)).at[NAMES.index("bad"), 0].set(against).at[NAMES.index("good"), 1].set(1.0)
        assert len(replaced("the food was bad", readings(energy(False, True, words=words)))) == num


@pytest.mark.parametrize("favoured", ["good", "warm"])
@pytest.mark.parametrize("source", ["the staff was rude and bad", "the food was bad"])
def test_the_new_word_has_the_highest_sum_of_all_that_speak_for_the_control(source: str, favoured: str) -> None:
    """By the nats of whole texts, the weights, and the cosines."""
    vectors = np.random.default_rng(0).normal(size=(VOCAB, 3))
    vectors /= np.linalg.norm(vectors, axis=-1, keepdims=True)
    words = weights("good", "warm", "kind", against=("bad", "rude")).at[NAMES.index(favoured), 1].set(2 * MAX_WEIGHT)
    of_mood, text = readings(energy(False, True, words=words)), tokens_of(source)
    of_good = of_mood.trigrams[0].of_values[1]

    def score(word: int, place: int) -> float:
        tokens = np.asarray([[*text[:place], word, *text[place + 1 :], EOS]])
        weight = float(words[word, 1] - words[word, 0])
        similarity = float(vectors[word] @ vectors[text[place]])
        nats = float(of_good.nll(tokens, np.ones_like(tokens, bool))[0])
        return min(weight, MAX_WEIGHT) + SIMILARITY_WEIGHT * similarity - nats

    allowed = [NAMES.index(word) for word in ("good", "warm", "kind")]
    for changed in map(tokens_of, replaced(source, of_mood, vectors)):
        for place in np.flatnonzero(np.asarray(changed) != np.asarray(text)).tolist():
            assert changed[place] == max(allowed, key=lambda word, place=place: score(word, place))


def test_a_word_that_only_one_value_has_is_not_always_taken() -> None:
    """Its weight counts up to a limit, and then the similar word is better."""
    words = weights("warm", against=("bad",)) * MAX_WEIGHT / 2
    words = words.at[NAMES.index("good"), 1].set(2 * MAX_WEIGHT)
    vectors = np.eye(VOCAB)
    vectors[NAMES.index("warm"), NAMES.index("bad")] = 0.5 * MAX_WEIGHT / SIMILARITY_WEIGHT
    assert replaced("the food was bad", readings(energy(False, True, words=words)), vectors) == ["the food was warm"]


def test_no_token_is_written_that_is_no_word() -> None:
    words = weights("good", against=("bad",)).at[jnp.asarray([PAD, EOS, UNK]), 1].set(2 * MAX_WEIGHT)
    vectors = np.eye(VOCAB)
    vectors[[PAD, EOS, UNK]] = vectors[NAMES.index("bad")]
    assert replaced("the food was bad", readings(energy(False, True, words=words)), vectors) == ["the food was good"]


def test_a_control_of_little_weight_replaces_nothing() -> None:
    of_mood = readings(energy(False, True))
    assert replaced("the staff was rude", of_mood)
    of_mood.energy = Sum(energies=of_mood.energy.energies, weights=(0.01,))
    assert not replaced("the staff was rude", of_mood)
