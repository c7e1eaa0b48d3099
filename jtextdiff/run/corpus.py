"""The corpus of a run, tokenised as the run was trained."""

from pathlib import Path

from jtextdiff.cli.errors import UserError, mistakes
from jtextdiff.cli.output import say
from jtextdiff.data.corpus import Corpus, prepare
from jtextdiff.data.tokenizer import Tokenizer
from jtextdiff.run import checkpoints
from jtextdiff.run.config import Config, build


def open_corpus(config: Config, workdir: Path) -> Corpus:
    """The corpus of a config, with the tokenizer that the run, or the one it starts from, already has.

    Raises UserError for whatever is wrong with the user's text.
    """
    homes = [workdir] if checkpoints.has_checkpoints(workdir) else []
    homes += [Path(of_other) for of_other in (config.warm_start, config.get("base")) if of_other]
    kept = next((home / "tokenizer" for home in homes if (home / "tokenizer").is_dir()), None)
    with mistakes(FileNotFoundError, ValueError):
        text, tokenizer = build(config.text), None if kept is None else Tokenizer.load(kept)
        corpus = prepare(text, warn=lambda note: say(f"warning: {note}"))
        if tokenizer is not None and tokenizer.fingerprint() != corpus.tokenizer.fingerprint():
            # As a rule the text has not changed, and it need not be tokenised again.
            corpus = prepare(text, tokenizer=tokenizer, warn=lambda note: None)
    return corpus


def corpus_values(corpus: Corpus, label: str) -> tuple[str, ...]:
    """The values of a label of the text. Raises UserError if it has none."""
    if label not in corpus.label_values:
        there = ", ".join(sorted(corpus.label_values)) or "none"
        raise UserError(f"method.condition: the text has no label {label!r}; it has: {there}.")
    return corpus.label_values[label]
