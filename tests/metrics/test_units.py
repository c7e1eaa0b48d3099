"""Units of texts: words of English as they were, Chinese and Japanese characters one by one, on lines by hand."""

import itertools
from collections.abc import Callable

import pytest

from jtextdiff.data.grammar.restaurants import sentences
from jtextdiff.metrics.bleu import corpus_bleu, self_bleu, sentence_bleu
from jtextdiff.metrics.ngrams import distinct_ngrams, share_copied, unigram_entropy
from jtextdiff.metrics.units import units

BY_HAND = {
    "": "",
    "   ": "",
    "the Mill is cheap .": "the|Mill|is|cheap|.",
    "  two\tkinds\nof \u00a0 space ": "two|kinds|of|space",
    "don't stop, it's 5/5!": "don't|stop,|it's|5/5!",
    "caf\u00e9 na\u00efve \u2013 \u201cquoted\u201d \u2026": "caf\u00e9|na\u00efve|\u2013|\u201cquoted\u201d|\u2026",
    "Привет мир": "Привет|мир",
    "한국어 문장": "한국어|문장",
    "สวัสดี ครับ": "สวัสดี|ครับ",
    "cheap \U0001f642 food": "cheap|\U0001f642|food",
    "好": "好",
    "很好": "很|好",
    "很 好": "很|好",
    "很好吃": "很|好|吃",
    "味道不错,下次再来": "味|道|不|错|,|下|次|再|来",
    "味道不错，下次再来。": "味|道|不|错|，|下|次|再|来|。",
    "味道不错, 下次再来.": "味|道|不|错|,|下|次|再|来|.",
    "送餐快!!!": "送|餐|快|!!!",
    "送餐快！！！": "送|餐|快|！|！|！",
    "等了2个小时": "等|了|2|个|小|时",
    "等了 2 个小时": "等|了|2|个|小|时",
    "花了128.5元": "花|了|128.5|元",
    "iPhone很好用": "iPhone|很|好|用",
    "用iPhone 4拍的": "用|iPhone|4|拍|的",
    "我买的Kindle和iPad Air": "我|买|的|Kindle|和|iPad|Air",
    "不是 very good 的": "不|是|very|good|的",
    "物流OK,质量OK": "物|流|OK,|质|量|OK",
    "《骆驼祥子》": "《|骆|驼|祥|子|》",
    "「引用」『再引』": "「|引|用|」|『|再|引|』",
    "一、二、三": "一|、|二|、|三",
    "〇一二": "〇|一|二",
    "\u3000\u3000这本书": "这|本|书",
    "前\u3000后": "前|后",
    "ＡＢＣ１２３": "Ａ|Ｂ|Ｃ|１|２|３",
    "（好）(坏)": "（|好|）|(|坏|)",
    "好…坏": "好|…|坏",
    "好——坏": "好|——|坏",
    "“好”": "“|好|”",
    "好^_^": "好|^_^",
    "好\U0001f642吃": "好|\U0001f642|吃",
    "http://a.cn/商品?id=3": "http://a.cn/|商|品|?id=3",
    "\u3400\u4dbf": "\u3400|\u4dbf",
    "\uf900\ufaff": "\uf900|\ufaff",
    "\U00020000\U0003134f": "\U00020000|\U0003134f",
    "ひらがな": "ひ|ら|が|な",
    "カタカナー": "カ|タ|カ|ナ|ー",
    "寿司はおいしい。": "寿|司|は|お|い|し|い|。",
    "Tokyoの寿司": "Tokyo|の|寿|司",
    "第1章\n第2章": "第|1|章|第|2|章",
    "A好B": "A|好|B",
    "A 好 B": "A|好|B",
    "5星好评": "5|星|好|评",
    "\u2605\u2605\u2605好": "\u2605\u2605\u2605|好",
    "100%纯棉 M码": "100%|纯|棉|M|码",
}


@pytest.mark.parametrize("text", BY_HAND)
def test_lines_by_hand(text: str) -> None:
    assert units(text) == [unit for unit in BY_HAND[text].split("|") if unit]


def test_units_of_english_are_its_words() -> None:
    """E2E's forms, the grammar's, and every kind of white space between."""
    e2e = [
        "The Vaults pub near Caf\u00e9 Adriatic has a 5 star rating .  Prices start at \u00a3 30 .",
        "Close to Caf\u00e9 Brazil, The Cambridge Blue pub serves delicious Tuscan Beef for \u00a310.50.",
        "Giraffe restaurant, in the city centre \u2013 kid-friendly; it\u2019s 'cheap' \u2026",
    ]
    spaces = [space.join(("a", "b", "", "c")) for space in map(chr, range(0x3001)) if space.isspace()]
    for text in [*e2e, *spaces, *(one.text for one in sentences(2_000, seed=3))]:
        assert units(text) == text.split()


PAIR = ("味道很好，送餐也快", "味道很好，送餐太慢")


@pytest.mark.parametrize(
    "score",
    [
        lambda texts: self_bleu(texts),
        lambda texts: sentence_bleu(*texts),
        lambda texts: corpus_bleu(texts[:1], texts[1:]),
        lambda texts: unigram_entropy(texts),
        lambda texts: distinct_ngrams(texts, 2),
    ],
)
def test_a_score_of_chinese_is_that_of_its_characters(score: Callable[[tuple[str, ...]], float]) -> None:
    assert score(PAIR) == score(tuple(" ".join(text) for text in PAIR)) > 0


def test_copies_of_chinese_are_those_of_its_characters() -> None:
    assert share_copied([*PAIR, "味道 很好，送餐也快"], PAIR[:1]) == pytest.approx(2 / 3)


def test_bleu_of_chinese_by_hand() -> None:
    """Seven of nine characters agree, all in front: 7/9, 6/8, 5/7 and 4/6 n-grams."""
    by_hand = (7 / 9 * 6 / 8 * 5 / 7 * 4 / 6) ** 0.25
    assert corpus_bleu(PAIR[:1], PAIR[1:]) == pytest.approx(by_hand)
    assert len(list(itertools.takewhile(lambda pair: pair[0] == pair[1], zip(*PAIR, strict=True)))) == 7
