"""The embedded corpus: a grammar of restaurant descriptions in the style of the E2E data set.

A text is an opening, which names the restaurant and states the fields of its plan, followed by sentences about the
remaining fields. Tense, register, grammatical number and sentiment are chosen once per text. The sentiment is that
of the judgements; where two are contrasted, that of the main clause or of the one after the contrast.
"""

from functools import cache
from itertools import product

import numpy as np

from jtextdiff.data.grammar.pcfg import Derivation, Grammar, grammar_from_text
from jtextdiff.data.grammar.restaurants_forms import FORMS, TAGS
from jtextdiff.data.grammar.restaurants_lexicon import LEXICON

_GROUPS = (
    "sg pl",
    "present past",
    "formal casual",
    "positive negative neutral",
    "con vow",
    "a:food a:service a:mood a:portions",
    "on:food on:price on:rating on:area on:near on:site on:family on:opinion on:contrast",
)

# The flags food, price, rating, area, near and family mark a field as stated; judged marks the sentiment as expressed.
_TEXT = """
text
  3: <register present> {tense=present}
  2: <register past> {tense=past}
register
  <mood formal> {formality=formal} | <mood casual> {formality=casual}
mood
  4: <plan positive> {sentiment=positive}
  3: <plan negative> {sentiment=negative}
  4: <plan neutral judged> {sentiment=neutral}
plan
  1: <size food> | <size price> | <size near> | <size area> | <size family food> | <size family price>
  7: <size food price>
  2: <size food near> | <size food area> | <size price near> | <size price area>
  1: <size food price near> | <size food price area> | <size near area> | <size family food near>
size
  3: <whole sg>
  2: <whole pl>
whole
  <opening> <rest>
rest
  [judged] 90: <end>
  [-food] 2: . <sentence on:food> <rest food>
  [-price] 9: . <sentence on:price> <rest price>
  [-rating] 9: . <sentence on:rating> <rest rating judged>
  [-area] 2: . <sentence on:area> <rest area>
  [-near] 2: . <sentence on:near> <rest near>
  [-family] 6: . <sentence on:family> <rest family>
  [-near -area] 1: . <sentence on:site> <rest near area>
  [-opinion -neutral] 20: . <sentence on:opinion> <rest opinion judged>
  [-opinion -rating -neutral] 3: . <sentence on:contrast> <rest opinion rating judged>
  [-price -family] 2: . <both> <rest price family>
  [-food -rating] 1: . <two on:rating> <rest food rating judged>
  [-food -area] 1: . <two on:area> <rest food area>
  [-food -near] 1: . <two on:near> <rest food near>
"""

_OPENINGS = """
opening
  4: <name> <be> <site>
  [food] 2: <name> <be> <site -food> <serving> <fare>
  [food] 2: <name> , <site -food> , <serve> <fare>
  [food casual] 1: If you <fancy> <fare> , <name> <be> <site -food>
  [near] 2: <front> <by> <landmark> , <name> <be> <site -near>
  [area] 2: <front> <district> , <name> <be> <site -area>
  2: <there> <site> <called> <name>
site
  [-near -area] <house>
  [near -area] <house> <by> <landmark>
  [area -near] <house> <district>
  [near area] <house> <district> , <by> <landmark>
house
  [-family] 3: a <style con> <core -con -vow>
  [-family] 1: an <style vow> <core -con -vow>
  [-family price] 1: a <core con>
  [-family price formal] 1: an <core vow>
  [family formal] a family-friendly <core -con -vow> {familyFriendly=yes}
  [family casual] a kid-friendly <core -con -vow> {familyFriendly=yes}
core
  [-price -food] <noun>
  [price -food] <cost> <noun>
  [-price food] <cuisine -con -vow> <noun>
  [price food] <cost> <cuisine -con -vow> <noun>
served
  2: <kind> food | <dishes>
  [formal] 1: <kind> dishes such as <dish> | <dish> and other <kind> dishes
  [casual] 1: <dish> and other <kind> stuff | <kind> grub like <dish>
"""

_SENTENCES = """
sentence
  7: <clause cap>
  [-on:contrast] 3: <lead> , <clause -cap>
both
  <itis cap> <cost> and <child>
two
  [on:area] <itis cap> <district> and <serve> <fare>
  [on:near] <itis cap> <by> <landmark> and <serve> <fare>
  [on:rating] <it cap> <serve> <fare> and <score>
clause
  [on:area] <itis> <placed> <district>
  [on:near] <itis> <placed> <by> <landmark>
  [on:site] <itis> <district> , <by> <landmark>
  [on:food] <it> <serve> <fare>
  [on:price] 2: <itis> <cost>
  [on:price] 3: <its> prices <be -sg> <level>
  [on:price cap] 6: <meals> <costs> <amount>
  [on:rating] 2: <it> <score>
  [on:rating cap] 1: <people> <rate> <them> <mark>
  [on:family] 1: <itis> <child>
  [on:family formal] 1: <it> <welcome> children {familyFriendly=yes} | <it> <discourage> children {familyFriendly=no}
  [on:opinion] 7: <verdict>
  [on:opinion cap] 3: <verdict_lead> , <verdict -cap>
  [on:opinion] 1: <verdict a:food> and <verdict a:service -cap> | <verdict a:service> and <verdict a:mood -cap>
  [on:opinion] 1: <verdict a:portions> and <verdict a:food -cap>
  [on:opinion] 1: <foil a:mood> , <but> <verdict a:food -cap> | <foil a:food> , <but> <verdict a:portions -cap>
  [on:opinion cap] 1: <although> <foil a:food -cap> , <verdict a:service -cap>
  [on:opinion cap] 1: <although> <foil a:service -cap> , <verdict a:mood -cap>
  [on:contrast] <although> <it -cap> <setback> , <verdict -cap> | <it> <setback> , <but> <verdict -cap>
child
  [formal] suitable for families {familyFriendly=yes} | not suitable for children {familyFriendly=no}
  [casual] great for kids {familyFriendly=yes} | no good for kids {familyFriendly=no}
score
  [formal] <have> <grade>
  [casual] <get> <stars>
setback
  [positive] <score negative>
  [negative] <score positive>
foil
  [positive] <verdict negative>
  [negative] <verdict positive>
verdict
  [-a:food -a:service -a:mood -a:portions] <judgement a:food> | <judgement a:service>
  [-a:food -a:service -a:mood -a:portions] <judgement a:mood> | <judgement a:portions>
  [a:food] <judgement>
  [a:service] <judgement>
  [a:mood] <judgement>
  [a:portions] <judgement>
judgement
  [-a:portions] <owner> <subject> <be sg> <praise>
  [a:portions] <owner> <subject> <be -sg> <praise>
praise
  3: <quality>
  2: <degree> <quality>
"""

_FIELDS = {
    "food": "food",
    "price": "priceRange",
    "rating": "customer_rating",
    "area": "area",
    "near": "near",
    "family": "familyFriendly",
}


def _ending() -> str:
    """Returns the rules of the full stop that ends a text: it sets every field that was not stated to none."""
    lines = ["end"]
    for is_stated in product((False, True), repeat=len(_FIELDS)):
        flags = " ".join(flag if stated else f"-{flag}" for flag, stated in zip(_FIELDS, is_stated, strict=True))
        missing = [f"{name}=none" for name, stated in zip(_FIELDS.values(), is_stated, strict=True) if not stated]
        lines.append(f"  [{flags}] . {{{';'.join(missing)}}}" if missing else f"  [{flags}] .")
    return "\n".join(lines)


@cache
def grammar() -> Grammar:
    """Returns the grammar of restaurant descriptions of 4 to 30 words, punctuation marks included."""
    text = "\n".join([_TEXT, _ending(), _OPENINGS, _SENTENCES, FORMS, LEXICON])
    return grammar_from_text(text, start="text", groups=_GROUPS, tags=TAGS, shortest=4, longest=30)


def sentences(num: int, seed: int) -> list[Derivation]:
    """Draws `num` sentences. The same seed gives the same sentences, and a smaller `num` gives the first of them."""
    rng = np.random.default_rng(seed)
    return [grammar().sample(rng) for _ in range(num)]
