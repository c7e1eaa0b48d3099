"""Tokenizers: decoding inverts encoding, and unknown tokens stay visible."""

import json

import numpy as np
import pytest
import tokenizers as hf

from jtextdiff.data.tokenizer import Tokenizer
from jtextdiff.data.tokenizer_builders import BytePairs, Characters, Pretrained, Words, tokenizer_builder

TEXTS = [
    "The Mill , a kid - friendly pub , is n't cheap : £ 20 .",
    "Near Café Adriatic ... it costs 3.5 !",
    "这家酒店很不错，服务也好。",
    "two  spaces\tand\na line",
]
CONFIGS = [Words(min_count=1), Characters(min_count=1), BytePairs(vocab_size=300)]


def round_trip(tokenizer: Tokenizer, text: str) -> str:
    """Returns the text after encoding and decoding."""
    return tokenizer.decode(tokenizer.encode([text])[0])


@pytest.fixture(params=CONFIGS, ids=lambda config: type(config).__name__)
def tokenizer(request) -> Tokenizer:
    return request.param.train(TEXTS)


def test_trained_specials_come_first_and_mask_is_appended(tokenizer):
    assert (tokenizer.pad, tokenizer.eos, tokenizer.unk) == (0, 1, 2)
    assert tokenizer.mask == tokenizer.vocab_size
    assert max(ids.max() for ids in tokenizer.encode(TEXTS)) < tokenizer.vocab_size


def test_round_trip(tokenizer):
    for text in TEXTS:
        expected = " ".join(text.split()) if tokenizer.encode(["a b"])[0].size == 2 else text
        assert round_trip(tokenizer, text) == expected


def test_a_round_trip_is_idempotent(tokenizer):
    for text in [*TEXTS, "Hi! (yes). wait... a.b"]:
        once = round_trip(tokenizer, text)
        assert "[UNK]" in once or round_trip(tokenizer, once) == once


def test_a_loaded_tokenizer_encodes_like_the_saved_one(tokenizer, tmp_path):
    tokenizer.save(tmp_path / "new")
    loaded = Tokenizer.load(tmp_path / "new")
    for text in [*TEXTS, "[PAD] unseen [EOS]"]:
        np.testing.assert_array_equal(loaded.encode([text])[0], tokenizer.encode([text])[0])
    assert loaded.fingerprint() == tokenizer.fingerprint()
    assert (loaded.mask, loaded.vocab_size, loaded.spaced) == (
        tokenizer.mask,
        tokenizer.vocab_size,
        tokenizer.spaced,
    )


def test_text_cannot_contain_specials(tokenizer):
    ids = tokenizer.encode(["[PAD] [EOS] [MASK] The Mill"])[0]
    assert not set(ids.tolist()) & {tokenizer.pad, tokenizer.eos, tokenizer.mask}


def test_decode_stops_at_eos_and_drops_pad(tokenizer):
    ids = tokenizer.encode([TEXTS[1]])[0].tolist()
    assert tokenizer.decode([0, *ids, 0, 1, 5, 6, 1]) == round_trip(tokenizer, TEXTS[1])
    assert tokenizer.decode([1]) == tokenizer.decode([]) == ""


def test_unknown_and_mask_are_printed(tokenizer):
    assert tokenizer.decode([tokenizer.unk]) == "[UNK]"
    assert tokenizer.decode([tokenizer.mask]) == "[MASK]"


def test_ids_outside_the_vocabulary_are_refused(tokenizer):
    with pytest.raises(ValueError, match="this tokenizer has ids 0 to"):
        tokenizer.decode([tokenizer.mask + 1])


def test_template_is_free_at_mask_and_fixed_elsewhere(tokenizer):
    ids, fixed = tokenizer.encode_template("The [MASK] is [MASK][MASK].")
    assert (~fixed).sum() == 3
    assert (ids[~fixed] == tokenizer.mask).all() and (ids[fixed] != tokenizer.mask).all()
    words = tokenizer.decode(ids).replace(" ", "")
    assert words == "The[MASK]is[MASK][MASK]."
    plain, all_fixed = tokenizer.encode_template(TEXTS[0])
    np.testing.assert_array_equal(plain, tokenizer.encode([TEXTS[0]])[0])
    assert all_fixed.all()


def test_template_keeps_spaces_that_are_tokens():
    ids, fixed = Characters(min_count=1).train(["a b"]).encode_template("a [MASK] b")
    assert fixed.tolist() == [True, True, False, True, True]
    assert ids[1] == ids[3]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("the river.", "the river ."),
        ('He said "hi!" (twice).', 'He said " hi ! " ( twice ) .'),
        ("3.5 a.b it's n't kid - friendly £ 20", "3.5 a.b it's n't kid - friendly £ 20"),
        ("wait ... what?!", "wait ... what ? !"),
        ("wait...", "wait ..."),
    ],
)
def test_punctuation_is_split_off_the_ends_of_words_only(text, words):
    assert round_trip(Words(min_count=1).train([text]), text) == words


def test_rare_words_are_unknown_and_visible():
    tokenizer = Words(min_count=2).train(["a a b"])
    assert tokenizer.vocab_size == 4
    assert round_trip(tokenizer, "a b a") == "a [UNK] a"
    assert round_trip(Characters(min_count=1).train(["ab"]), "axb") == "a[UNK]b"


def test_unknown_words_survive_normalized_spacing():
    tokenizer = Words(min_count=2).train(["a a b b . ."])
    assert tokenizer.normalize_spacing("a  zorb b, y.") == "a zorb b , y ."
    assert tokenizer.normalize_spacing("x [UNK] b") == "x [UNK] b" and tokenizer.normalize_spacing("") == ""
    assert Characters(min_count=1).train(["ab"]).normalize_spacing("axb") == "axb"


def test_unknown_words_are_listed():
    tokenizer = Words(min_count=2).train(["a a b b . ."])
    assert tokenizer.unknown_words("a  zorb b, y.") == ["zorb", ",", "y"] and tokenizer.unknown_words("a b.") == []
    assert BytePairs(vocab_size=259).train(["a"]).unknown_words("zorb") == []


def test_only_byte_pairs_are_open_vocabulary():
    assert BytePairs(vocab_size=259).train(["plain"]).open_vocabulary
    assert not Words(min_count=1).train(["plain"]).open_vocabulary
    assert not Characters(min_count=1).train(["ab"]).open_vocabulary


def test_byte_pairs_encode_every_character():
    tokenizer = BytePairs(vocab_size=259).train(["plain"])
    assert round_trip(tokenizer, "语言 🙂 é\n[UNK]") == "语言 🙂 é\n[UNK]"
    assert tokenizer.unk not in tokenizer.encode(["语言 🙂 [UNK]"])[0]


def test_byte_pairs_do_not_merge_across_chinese_characters():
    tokenizer = BytePairs(vocab_size=400).train(["不错不错不错"] * 50)
    assert len(tokenizer.encode(["不错"])[0]) == 2


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (Words(min_count=5), "no token of the training texts occurs 5 times; lower N in text.tokenizer=words:N"),
        (Characters(min_count=50), "lower N in text.tokenizer=characters:N"),
        (BytePairs(vocab_size=100), "text.tokenizer is byte_pairs:100; byte pairs need at least 259"),
    ],
)
def test_untrainable_is_refused(config, message):
    with pytest.raises(ValueError, match=message):
        config.train(["a b a b"])


def test_load_reports_what_is_missing_or_damaged(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no tokenizer.json in"):
        Tokenizer.load(tmp_path)
    Words(min_count=1).train(["a"]).save(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(ValueError, match="cannot read the tokenizer in"):
        Tokenizer.load(tmp_path)


def _bert(directory, specials):
    vocab = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "[MASK]": 4, "good": 5, "##s": 6, "pub": 7}
    backend = hf.Tokenizer(hf.models.WordPiece(vocab, unk_token="[UNK]"))
    backend.pre_tokenizer = hf.pre_tokenizers.BertPreTokenizer()
    backend.decoder = hf.decoders.WordPiece()
    backend.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    backend.enable_truncation(2)  # as sentence encoders store it
    if "pad_token" in specials:
        backend.enable_padding(length=2)
    backend.save(str(directory / "tokenizer.json"))
    tokenizer_config = {"tokenizer_class": "PreTrainedTokenizerFast", **specials}
    (directory / "tokenizer_config.json").write_text(json.dumps(tokenizer_config))


def test_pretrained_keeps_its_own_mask_and_truncates_nothing(tmp_path):
    names = {"pad_token": "[PAD]", "sep_token": "[SEP]", "mask_token": "[MASK]", "unk_token": "[UNK]"}
    _bert(tmp_path, names)
    tokenizer = Pretrained(name=str(tmp_path)).train(["ignored"])
    assert (tokenizer.pad, tokenizer.eos, tokenizer.unk, tokenizer.mask) == (0, 3, 1, 4)
    assert tokenizer.vocab_size == 8
    assert tokenizer.encode(["goods pub good pub"])[0].tolist() == [5, 6, 7, 5, 7]
    assert tokenizer.decode([2, 5, 6, 4, 1, 3, 5]) == "goods [MASK] [UNK]"
    assert tokenizer.encode_template("good [MASK]")[1].tolist() == [True, False]


def test_pretrained_without_pad_or_mask_pads_with_eos(tmp_path):
    _bert(tmp_path, {"eos_token": "[SEP]", "unk_token": "[SEP]"})
    tokenizer = Pretrained(name=str(tmp_path)).train()
    assert (tokenizer.pad, tokenizer.eos, tokenizer.unk) == (3, 3, None)


def test_pretrained_special_tokens_are_printed_by_the_librarys_names(tmp_path):
    backend = hf.Tokenizer(hf.models.WordLevel({"</s>": 0, "<unk>": 1, "<mask>": 2, "a": 3}, unk_token="<unk>"))
    backend.pre_tokenizer = hf.pre_tokenizers.WhitespaceSplit()
    backend.add_special_tokens(["</s>", "<mask>"])
    backend.save(str(tmp_path / "tokenizer.json"))
    names = {"eos_token": "</s>", "unk_token": "<unk>", "mask_token": "<mask>"}
    tokenizer_config = {"tokenizer_class": "PreTrainedTokenizerFast", **names}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(tokenizer_config))
    tokenizer = Pretrained(name=str(tmp_path)).train()
    assert tokenizer.decode(tokenizer.encode_template("a b [MASK]")[0]) == "a [UNK] [MASK]"


def test_pretrained_reports_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    _bert(tmp_path, {"pad_token": "[PAD]"})
    with pytest.raises(ValueError, match="no end-of-text or separator token"):
        Pretrained(name=str(tmp_path)).train()
    with pytest.raises(FileNotFoundError, match="text.tokenizer is pretrained:/nowhere/at/all"):
        Pretrained(name="/nowhere/at/all").train()


@pytest.mark.parametrize(
    ("spec", "builder"),
    [
        ("words", Words()),
        ("words:3", Words(min_count=3)),
        ("characters:1", Characters(min_count=1)),
        ("byte_pairs:300", BytePairs(vocab_size=300)),
        ("pretrained:some/name", Pretrained(name="some/name")),
    ],
)
def test_a_spec_names_a_builder_and_its_number(spec: str, builder: object) -> None:
    assert tokenizer_builder(spec) == builder


@pytest.mark.parametrize("spec", ["", "word", "words:", "words:many", "words:-1", "pretrained", "pretrained:"])
def test_a_wrong_spec_reports_what_was_expected(spec: str) -> None:
    with pytest.raises(ValueError, match="expected words:N"):
        tokenizer_builder(spec)
