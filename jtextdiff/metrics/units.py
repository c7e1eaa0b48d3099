"""Units of text that scores count: words, and single Chinese and Japanese characters."""

import re
from collections.abc import Iterable

# CJK ideographs (with extension A, compatibility and the supplementary planes), kana, CJK punctuation and full-width
# forms: scripts without spaces between words. U+3000, the space among them, is white space.
_UNSPACED = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\u3040-\u30ff\u3001-\u303f\uff00-\uffef\U00020000-\U0003134f"

UNSPACED = re.compile(f"[{_UNSPACED}]")
UNIT = re.compile(rf"[{_UNSPACED}]|[^\s{_UNSPACED}]+")
"""One unit."""


def units(text: str) -> list[str]:
    """Returns the units of a text in their order: `text.split()` for text without Chinese or Japanese.

    A Chinese review has no spaces: as one word it would share no n-gram with any other.
    """
    return UNIT.findall(text)


def is_unspaced(texts: Iterable[str]) -> bool:
    """Returns whether most characters of the texts, without white space, are of a script without spaces."""
    characters = [character for text in texts for character in text if not character.isspace()]
    return 2 * sum(UNSPACED.match(character) is not None for character in characters) > len(characters)
