"""Probabilistic grammars, checked against the enumeration of a small one."""

import itertools
import math

import numpy as np
import pytest

from jtextdiff.data.grammar.chart_parser import derivations, rules_by_first_word
from jtextdiff.data.grammar.feature_rules import Rules
from jtextdiff.data.grammar.pcfg import Derivation, Grammar, Tree, grammar_from_text

SMALL = """
text
  3: <opening good> {mood=good}
  1: <opening bad> {mood=bad}
opening
  2: <whole sg>
  1: <whole pl>
whole
  2: <name> <be> <judged> <more>
  [good] 1: <name> <be> here <more>
name PROPN
  [sg] 2: Ann {name=Ann}
  [sg] 1: Old Bob {name=Bob}
  [pl] The Kims {name=Kims}
be AUX
  [sg] is
  [-sg] are
judged
  [good] kind
  [good] 3: very kind
  [bad] rude
more
  5: . {pet=none}
  1: and <have> <pet> <last told> | and <have> <pet> here <last>
last
  .
  [told] too .
  2: there and very there .
have VERB
  [sg] has
  [pl] have
pet
  3: a/DET cat {pet=cat}
  1: an/DET owl {pet=owl}
"""
TAGS = dict.fromkeys(["and", "."], "X") | dict.fromkeys(["here", "there", "too", "very"], "ADV")
TAGS |= dict.fromkeys(["kind", "rude"], "ADJ") | dict.fromkeys(["cat", "owl"], "NOUN")
OWNER = ("Old", "Bob", "is", "rude", "and", "has", "an", "owl", ".")
KIND = ("Ann", "is", "very", "kind", ".")
HERE = ("a", "cat", "here")


def small_grammar(text: str = SMALL, shortest: int = 5, longest: int = 10) -> Grammar:
    return grammar_from_text(text, start="text", groups=("sg pl",), tags=TAGS, shortest=shortest, longest=longest)


def enumerate_all(rules: Rules, symbol: int) -> list[tuple[tuple[str, ...], dict[str, str], float]]:
    """Returns words, fields and raw probability of every derivation of a symbol."""
    derived = []
    for rule in rules.alternatives[symbol]:
        parts = [
            enumerate_all(rules, item) if isinstance(item, int) else [((item.text,), {}, 1.0)] for item in rule.body
        ]
        for choice in itertools.product(*parts):
            fields = dict(rule.attributes).copy()
            for _, child_fields, _ in choice:
                fields |= child_fields
            words = tuple(itertools.chain(*(words for words, _, _ in choice)))
            derived.append((words, fields, rule.probability * math.prod(p for *_, p in choice)))
    return derived


SMALL_GRAMMAR = small_grammar()
RAW = enumerate_all(SMALL_GRAMMAR.rules, len(SMALL_GRAMMAR.rules.labels) - 1)
WITHIN = [(words, fields, p) for words, fields, p in RAW if 5 <= len(words) <= 10]
MASS = sum(p for *_, p in WITHIN)


def leaves(tree: Tree) -> list[str]:
    return [leaf for child in tree[1:] for leaf in ([child] if isinstance(child, str) else leaves(child))]


def test_limits_cut_both_ends_of_the_small_grammar():
    assert sum(p for *_, p in RAW) == pytest.approx(1.0, abs=1e-12)
    assert any(len(words) < 5 for words, *_ in RAW) and any(len(words) > 10 for words, *_ in RAW)


def test_probabilities_of_all_sentences_sum_to_one():
    probabilities = [math.exp(SMALL_GRAMMAR.log_prob(words)) for words, *_ in WITHIN]
    np.testing.assert_allclose(probabilities, [p / MASS for *_, p in WITHIN], rtol=1e-12)
    assert sum(probabilities) == pytest.approx(1.0, abs=1e-12)


def test_every_sentence_has_one_derivation_with_its_fields():
    assert len({words for words, *_ in RAW}) == len(RAW)
    for words, fields, _ in WITHIN:
        parsed = SMALL_GRAMMAR.parse(words)
        assert parsed is not None
        assert parsed.words == words and parsed.fields == fields


def test_sentences_beyond_the_limits_are_not_generated():
    for words, *_ in RAW:
        inside = 5 <= len(words) <= 10
        assert (words in SMALL_GRAMMAR) == inside
        assert (SMALL_GRAMMAR.parse(words) is not None) == inside
        assert math.isfinite(SMALL_GRAMMAR.log_prob(words)) == inside


@pytest.mark.parametrize(
    "text",
    [
        "Ann are very kind .",
        "The Kims has a cat here .",
        "Ann is kind and has an cat too .",
        "Ann is very rude .",
        "Ann is very kind",
        "Ann is very kind . .",
        "Ann is rather kind .",
        "",
    ],
)
def test_other_sentences_have_no_parse_and_no_probability(text: str):
    assert SMALL_GRAMMAR.parse(text.split()) is None
    assert SMALL_GRAMMAR.log_prob(text.split()) == -math.inf


def test_counts_lengths_and_entropy_equal_their_sums():
    lengths = np.zeros(11)
    for words, _, p in WITHIN:
        lengths[len(words)] += p / MASS
    assert SMALL_GRAMMAR.num_sentences() == len(WITHIN)
    np.testing.assert_allclose(SMALL_GRAMMAR.length_distribution(), lengths, atol=1e-12)
    surprise = [-(p / MASS) * math.log(p / MASS) for *_, p in WITHIN]
    assert SMALL_GRAMMAR.entropy() == pytest.approx(sum(surprise), abs=1e-12)


GIVENS = [{}, {"pet": "cat"}, {"pet": "none"}, {"mood": "bad", "pet": "owl"}, {"name": "Kims", "mood": "good"}]


@pytest.mark.parametrize("given", GIVENS)
def test_the_conditional_is_the_joint_over_the_marginal(given: dict[str, str]):
    having = [(words, p) for words, fields, p in WITHIN if given.items() <= fields.items()]
    marginal = sum(p for _, p in having) / MASS
    assert SMALL_GRAMMAR.log_marginal(given) == pytest.approx(math.log(marginal), abs=1e-12)
    total = 0.0
    for words, *_ in WITHIN:
        conditional = SMALL_GRAMMAR.log_prob(words, given=given)
        total += math.exp(conditional)
        if words in dict(having):
            joint = SMALL_GRAMMAR.log_prob(words)
            assert conditional + math.log(marginal) == pytest.approx(joint, abs=1e-12)
        else:
            assert conditional == -math.inf
    assert total == pytest.approx(1.0, abs=1e-12)


def test_samples_follow_the_distribution():
    rng = np.random.default_rng(0)
    num = 20_000
    counts: dict[tuple[str, ...], int] = {}
    for _ in range(num):
        words = SMALL_GRAMMAR.sample(rng).words
        counts[words] = counts.get(words, 0) + 1
    assert counts.keys() <= {words for words, *_ in WITHIN}
    for words, _, p in WITHIN:
        share = p / MASS
        assert abs(counts.get(words, 0) - num * share) <= 5 * math.sqrt(num * share) + 5


def test_samples_equal_their_parses_and_trees_hold_the_words():
    rng = np.random.default_rng(1)
    for _ in range(200):
        sampled = SMALL_GRAMMAR.sample(rng)
        assert sampled == SMALL_GRAMMAR.parse(sampled.words)
        assert tuple(leaves(sampled.tree)) == sampled.words
        assert len(sampled.tags) == len(sampled.words)
        assert sampled.text.split() == list(sampled.words)


def test_tags_come_from_word_block_or_table():
    parsed = SMALL_GRAMMAR.parse(OWNER)
    assert isinstance(parsed, Derivation)
    assert parsed.tags == ("PROPN", "PROPN", "AUX", "ADJ", "X", "VERB", "DET", "NOUN", "X")
    assert parsed.tree[0] == "text"


def test_ambiguity_is_refused():
    ambiguous = small_grammar("text\n  a/DET <b> | a/DET <c>\nb\n  cat here\nc\n  cat here", shortest=1)
    assert len(derivations(rules_by_first_word(ambiguous.rules), HERE)) == 2
    with pytest.raises(ValueError, match="2 derivations"):
        ambiguous.parse(HERE)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("text\n  <lost>", "without alternatives.*lost"),
        ("text\n  cat <text>", "contains itself"),
        ("text\n  <b pl>\nb\n  [sg] cat", "no alternative for the values"),
        ("text\n  dog", "'dog'.*has no tag"),
        ("  cat", "before any symbol"),
        ("text\n  <b> <b>\nb\n  cat {pet=cat}", "twice"),
        ("text\n  cat {pet=cat} | owl", "different attributes"),
    ],
)
def test_faulty_rules_are_refused(text: str, message: str):
    with pytest.raises(ValueError, match=message):
        small_grammar(text)


def test_impossible_questions_are_refused():
    with pytest.raises(ValueError, match="unknown attribute 'colour'.*mood, name, pet"):
        SMALL_GRAMMAR.log_marginal({"colour": "red"})
    with pytest.raises(ValueError, match="no sentence has.*'dog'.*'cat', 'none', 'owl'"):
        SMALL_GRAMMAR.log_prob(KIND, given={"pet": "dog"})
    with pytest.raises(ValueError, match="no sentence has 20 to 30 words"):
        small_grammar(shortest=20, longest=30).sample(np.random.default_rng(0))
