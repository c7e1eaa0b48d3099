"""The open-class words of the restaurant grammar: names, landmarks, foods, kinds of house, prices, judgements."""

_NAMES = {
    "sg": "The Golden Palace | The Mill | Bella Luna | The Copper Kettle | Marlowe House | Saffron Garden | Juniper"
    " | The Crooked Spoon | The Blue Heron | The Black Swan | Mulberry Hall | The Hungry Fox | The Painted Door"
    " | The Glass Onion | Rosemary Cottage | The Old Lantern | Casa Verde | The Harvest Moon | The Silver Birch"
    " | The Red Parrot | Maison Claire | The Lazy Otter",
    "pl": "The Two Brewers | The Three Barrels | The Seven Stars | The Kitchen Sisters | The Wandering Cooks"
    " | The Merry Farmers | The Royal Oaks | The Twin Chimneys | The Village Bakers | The Rose Gardens"
    " | The Jolly Sailors | The Market Stalls | The Four Seasons | The White Horses",
}

_LANDMARKS = (
    "Crown Bridge | Victoria Park | Queen Street | Café Milano | Burger Barn | Kingfisher Lake | Mercer College"
    " | the town hall | the cathedral | the railway station | the old library | the Grand Hotel | the museum"
    " | the bus stop | the art gallery | the university | the post office | the football ground | the theatre"
    " | the castle | the clock tower | the hospital | the swimming pool | the canal"
)

_CUISINES = {
    "American": "burgers steaks",
    "Chinese": "dumplings noodles",
    "English": "pies scones",
    "French": "crepes pastries",
    "Greek": "moussaka souvlaki",
    "Indian": "curries samosas",
    "Italian": "pizza pasta",
    "Japanese": "sushi ramen",
    "Korean": "bibimbap kimchi",
    "Lebanese": "falafel hummus",
    "Mexican": "tacos burritos",
    "Moroccan": "couscous tagines",
    "Spanish": "tapas paella",
    "Thai": "satay papaya-salads",
    "Turkish": "kebabs baklava",
}


def _as_values(attribute: str, values: str) -> str:
    """Returns alternatives that each set an attribute to themselves, without a leading article."""
    return " | ".join(f"{value} {{{attribute}={value.removeprefix('the ')}}}" for value in values.split(" | "))


def _names() -> str:
    return "name PROPN\n" + "\n".join(f"  [{number}] {_as_values('name', v)}" for number, v in _NAMES.items())


def _landmarks() -> str:
    return f"landmark\n  {_as_values('near', _LANDMARKS)}"


def _cuisines() -> str:
    """Returns adjectives, split by the article that they take, and food whose dishes match its cuisine."""
    adjectives, fare, kind, dish, dishes = ["cuisine ADJ"], ["fare"], ["kind ADJ"], ["dish NOUN"], ["dishes NOUN"]
    for cuisine, dish_names in _CUISINES.items():
        feature = cuisine.lower()
        excluded = "con" if cuisine[0] in "AEIOU" else "vow"
        adjectives.append(f"  [-{excluded}] {cuisine} {{food={cuisine}}}")
        fare.append(f"  <served {feature}> {{food={cuisine}}}")
        kind.append(f"  [{feature}] {cuisine}")
        dish.append(f"  [{feature}] {dish_names.replace(' ', ' | ')}")
        dishes.append(f"  [{feature}] {dish_names.replace(' ', ' and/CCONJ ')}")
    return "\n".join(adjectives + fare + kind + dish + dishes)


_HOUSES = """
noun NOUN
  [formal] 3: restaurant {eatType=restaurant}
  2: pub {eatType=pub} | coffee shop {eatType=coffee shop}
  [formal] bistro {eatType=bistro} | brasserie {eatType=brasserie} | wine bar {eatType=wine bar}
  [formal] establishment {eatType=none} | venue {eatType=none}
  [casual] diner {eatType=diner} | café {eatType=coffee shop} | boozer {eatType=pub} | eatery {eatType=none}
  [casual] spot {eatType=none} | joint {eatType=none} | hangout {eatType=none}
style ADJ
  [formal -vow] traditional | modern | contemporary | spacious | refined | quiet | small | well-known | renowned
  [formal -vow] rustic | picturesque | licensed | distinguished | peaceful | stately
  [formal -con] elegant | intimate | established | old-fashioned
  [casual -vow] laid-back | cosy | homely | handy | quirky | little | no-frills | trendy | chilled-out | buzzing
  [casual -vow] funky | retro | scruffy | cute | hip
  [casual -con] easygoing | unfussy | offbeat | everyday
district
  [formal] in the city centre {area=city centre} | on the riverside {area=riverside} | on the seafront {area=seafront}
  [formal] in the historic quarter {area=old town} | in the suburbs {area=suburbs} | on the outskirts {area=outskirts}
  [casual] in the middle of town {area=city centre} | down by the river {area=riverside}
  [casual] down by the sea {area=seafront} | up in the old town {area=old town}
  [casual] out in the burbs {area=suburbs} | on the edge of town {area=outskirts}
by
  [formal] near | close to | opposite | adjacent to | beside
  [casual] just by | next to | right by | across from | round the corner from
"""

_PRICES = """
cost
  [formal -vow] moderately/ADV priced/ADJ {priceRange=moderate} | reasonably/ADV priced/ADJ {priceRange=moderate}
  [formal -vow] costly/ADJ {priceRange=high}
  [formal -con] inexpensive/ADJ {priceRange=cheap} | affordable/ADJ {priceRange=cheap} | expensive/ADJ {priceRange=high}
  [casual -vow] cheap/ADJ {priceRange=cheap} | pricey/ADJ {priceRange=high} | mid-range/ADJ {priceRange=moderate}
  [casual -vow] dirt/NOUN cheap/ADJ {priceRange=cheap} | wallet-friendly/ADJ {priceRange=cheap}
level ADJ
  [formal] low {priceRange=cheap} | moderate {priceRange=moderate} | high {priceRange=high}
  [casual] rock-bottom {priceRange=cheap} | middling {priceRange=moderate} | steep {priceRange=high}
amount
  [formal] less than £ 20/NUM {priceRange=less than £ 20} | more than £ 30/NUM {priceRange=more than £ 30}
  [formal] between £ 20/NUM and £ 25/NUM {priceRange=£ 20 - 25}
  [casual] under £ 20/NUM {priceRange=less than £ 20} | over £ 30/NUM {priceRange=more than £ 30}
  [casual] about £ 25/NUM {priceRange=£ 20 - 25}
"""

_RATINGS = """
mark
  [formal positive] highly {customer_rating=high}
  [formal neutral] as average {customer_rating=average}
  [formal negative] poorly {customer_rating=low}
  [casual] <stars>
grade
  [positive] 2: a high customer rating {customer_rating=high}
  [positive] a customer rating of 5 out of 5 {customer_rating=5 out of 5}
  [neutral] 2: an average customer rating {customer_rating=average}
  [neutral] a customer rating of 3 out of 5 {customer_rating=3 out of 5}
  [negative] 2: a low customer rating {customer_rating=low}
  [negative] a customer rating of 1 out of 5 {customer_rating=1 out of 5}
stars
  [positive] top marks {customer_rating=high} | 5 stars {customer_rating=5 out of 5}
  [neutral] so-so reviews {customer_rating=average} | 3 stars {customer_rating=3 out of 5}
  [negative] bad reviews {customer_rating=low} | 1 star {customer_rating=1 out of 5}
"""

_JUDGEMENTS = """
subject NOUN
  [a:food] food | cooking
  [a:service] service
  [a:mood formal] atmosphere | ambience
  [a:mood casual] vibe
  [a:portions] portions
quality ADJ
  [positive formal] excellent | exceptional | superb | outstanding | impressive
  [positive casual] great | brilliant | fantastic | lovely | ace
  [negative formal] disappointing | poor | mediocre | unsatisfactory | inferior
  [negative casual] awful | rubbish | terrible | lousy | naff
  [positive formal a:food] 2: delicious
  [positive casual a:food] 2: tasty
  [negative formal a:food] 2: bland
  [negative casual a:food] 2: greasy
  [positive formal a:service] 2: attentive
  [positive casual a:service] 2: speedy
  [negative formal a:service] 2: slow
  [negative casual a:service] 2: rude
  [positive formal a:mood] 3: delightful | charming
  [positive casual a:mood] 3: fun | relaxed
  [negative formal a:mood] 3: oppressive | dreary
  [negative casual a:mood] 3: dull | grim
  [positive formal a:portions] 3: generous | plentiful
  [positive casual a:portions] 3: huge | massive
  [negative formal a:portions] 3: inadequate | insufficient
  [negative casual a:portions] 3: tiny | stingy
degree ADV
  [positive formal] consistently | truly
  [negative formal] rather | regrettably
  [positive casual] really | super
  [negative casual] pretty | plain
verdict_lead ADV
  [positive formal] Fortunately
  [negative formal] Unfortunately
  [positive casual] Luckily
  [negative casual] Sadly
"""

LEXICON = "\n".join([_names(), _landmarks(), _cuisines(), _HOUSES, _PRICES, _RATINGS, _JUDGEMENTS])
