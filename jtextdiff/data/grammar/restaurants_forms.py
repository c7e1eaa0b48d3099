"""The closed-class words of the restaurant grammar, inflected for number, tense, register or case; and all tags."""

FORMS = """
be AUX
  [sg -past] is
  [-sg -past] are
  [sg past] was
  [-sg past] were
have VERB
  [sg -past] has
  [-sg -past] have
  [past] had
get VERB
  [sg -past] gets
  [-sg -past] get
  [past] got
serve VERB
  [formal sg -past] serves | offers | provides
  [formal -sg -past] serve | offer | provide
  [formal past] served | offered | provided
  [casual sg -past] does | dishes up/ADP | knocks out/ADP
  [casual -sg -past] do | dish up/ADP | knock out/ADP
  [casual past] did | dished up/ADP | knocked out/ADP
serving VERB
  [formal] serving | offering | specialising in/ADP
  [casual] doing | dishing up/ADP | knocking out/ADP
welcome VERB
  [sg -past] welcomes
  [-sg -past] welcome
  [past] welcomed
discourage VERB
  [sg -past] discourages
  [-sg -past] discourage
  [past] discouraged
rate VERB
  [formal -past] rate
  [formal past] rated
  [casual -past] give
  [casual past] gave
costs
  [formal] cost
  [casual -past] go for
  [casual past] went for
fancy VERB
  [-past] fancy
  [past] fancied
itis
  [formal] <it> <be>
  [casual past] <it> <be>
  [casual -past sg cap] It's
  [casual -past sg -cap] it's
  [casual -past -sg cap] They're
  [casual -past -sg -cap] they're
it PRON
  [sg cap] It
  [sg -cap] it
  [-sg cap] They
  [-sg -cap] they
them PRON
  [sg] it
  [-sg] them
its PRON
  [sg cap] Its
  [sg -cap] its
  [-sg cap] Their
  [-sg -cap] their
owner
  [cap] 2: The
  [-cap] 2: the
  1: <its>
there
  [formal] There <be sg>
  [casual past] There was
  [casual -past] There's
called VERB
  [formal] named
  [casual] called
front
  [formal] Located | Situated
  [casual] Hidden away | Tucked away
placed
  [formal] located | situated
  [casual] hidden away | tucked away
lead ADV
  [formal] Furthermore | Moreover
  [casual] Plus | Also
although SCONJ
  [formal] Although
  [casual] Though
but CCONJ
  [formal] yet
  [casual] but
meals NOUN
  [formal] Meals
  [casual] Mains
people NOUN
  [formal] Customers
  [casual] Folks
"""

TAGS = {
    word: tag
    for tag, words in {
        "ADJ": "adjacent average bad close good great high historic less low more next old opposite other"
        " so-so suitable top family-friendly kid-friendly such",
        "ADP": "across as at beside between by down for from in like near of on out over round than to under up",
        "ADV": "about away highly just no not poorly right",
        "AUX": "was",
        "CCONJ": "and",
        "DET": "The a an the",
        "NOUN": "art burbs bus canal castle cathedral centre children city clock corner customer dishes edge"
        " families food football gallery ground grub hall hospital kids library marks middle museum office"
        " outskirts pool post prices quarter railway rating reviews river riverside sea seafront star"
        " stars station stop stuff suburbs swimming theatre tower town university",
        "NUM": "1 3 5",
        "PRON": "It's There There's They're You it's they're you",
        "PROPN": "Barn Bridge Burger Café College Crown Grand Hotel Kingfisher Lake Mercer Milano Park Queen Street"
        " Victoria",
        "PUNCT": ", .",
        "SCONJ": "If",
        "SYM": "£",
        "VERB": "Hidden Located Situated Tucked cost go hidden located situated tucked went",
    }.items()
    for word in words.split()
}
