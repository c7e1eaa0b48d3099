"""The corpus of a run, with the tokenizer that the run was trained with."""

from pathlib import Path

from jtextdiff.cli.errors import UserError, mistakes
from jtextdiff.cli.output import say
from jtextdiff.data.corpus import Corpus, prepare_corpus
from jtextdiff.data.tokenizer import Tokenizer
from jtextdiff.run import checkpoints
from jtextdiff.run.config import Config, build


def open_corpus(config: Config, workdir: Path) -> Corpus:
    """Returns the corpus of a config, tokenised as in the run, or as in the run that it starts from.

    Raises UserError for whatever is wrong with the user's text.
    """
    runs = [workdir] if checkpoints.has_checkpoints(workdir) else []
    runs += [Path(other) for other in (config.warm_start, config.get("base")) if other]
    stored = next((run / "tokenizer" for run in runs if (run / "tokenizer").is_dir()), None)
    with mistakes(FileNotFoundError, ValueError):
        text, tokenizer = build(config.text), None if stored is None else Tokenizer.load(stored)
        corpus = prepare_corpus(text, warn=lambda note: say(f"warning: {note}"))
        if tokenizer is not None and tokenizer.fingerprint() != corpus.tokenizer.fingerprint():
            # The text has changed since, which is rare: tokenise it again, as in the run.
            corpus = prepare_corpus(text, tokenizer=tokenizer, warn=lambda note: None)
    return corpus


def label_values(corpus: Corpus, label: str, text: str = "the text", remedy: str = "") -> tuple[str, ...]:
    """Returns the values of a label. Raises UserError if the text, named so in the message, does not have it."""
    if label not in corpus.label_values:
        available = ", ".join(sorted(corpus.label_values)) or "none"
        raise UserError(f"{text} has no label {label!r}; it has: {available}.{remedy}")
    return corpus.label_values[label]
