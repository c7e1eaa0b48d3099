"""The corpus of a run, with the tokenizer that the run was trained with."""

from pathlib import Path

from jtextdiff.cli.errors import UserError, mistakes
from jtextdiff.cli.output import say
from jtextdiff.data.corpus import Corpus, Text, prepare_corpus
from jtextdiff.data.tokenizer import Tokenizer
from jtextdiff.data.tokenizer_builders import same_tokenizer
from jtextdiff.run import checkpoints
from jtextdiff.run.config import Config, build
from jtextdiff.run.workdir import read_config


def open_corpus(config: Config, workdir: Path) -> Corpus:
    """Returns the corpus of a config, tokenised as in the run, or as in the run that it starts from.

    Raises UserError for whatever is wrong with the user's text, and for a published checkpoint by itself without one.
    """
    runs = [workdir] if checkpoints.has_checkpoints(workdir) else []
    runs += [Path(other) for other in (config.warm_start, config.get("base")) if other]
    if config.get("init") and Path(config.init) == workdir and config.text.path is None:
        raise UserError(
            f"{workdir} is a published checkpoint and has no text of its own: give the real text to compare with, "
            "--override text.path=FILE, FOLDER or hub:NAME."
        )
    stored = next((run / "tokenizer" for run in runs if (run / "tokenizer").is_dir()), None)
    _check_warm_start(config, workdir)
    notes: list[str] = []
    with mistakes(FileNotFoundError, ValueError):
        text, tokenizer = build(config.text), None if stored is None else Tokenizer.load(stored)
        corpus = _tokenised(text, tokenizer, notes)
    for note in notes:
        say(f"warning: {note}")
    return corpus


def _tokenised(text: Text, tokenizer: Tokenizer | None, notes: list[str]) -> Corpus:
    """The corpus in the tokens of a run's tokenizer, if there is one. Adds the `notes` on it."""
    try:
        corpus = prepare_corpus(text, warn=notes.append)
        if tokenizer is None or tokenizer.fingerprint() == corpus.tokenizer.fingerprint():
            return corpus
    except (FileNotFoundError, ValueError):
        if tokenizer is None:
            raise
    # The text is another than the run's, or too short for a tokenizer of its own: tokenise it again, as in the run.
    notes.clear()
    return prepare_corpus(text, tokenizer=tokenizer, warn=notes.append)


def _check_warm_start(config: Config, workdir: Path) -> None:
    """Raises UserError for a tokenizer other than that of the run whose parameters a new run starts from."""
    if not config.warm_start or checkpoints.has_checkpoints(workdir):
        return
    given, stored = config.text.tokenizer, read_config(Path(config.warm_start)).text.tokenizer
    with mistakes(ValueError):
        if not same_tokenizer(given, stored):
            raise UserError(
                f"text.tokenizer is {given}, but the parameters of warm_start={config.warm_start} have the vocabulary "
                f"of {stored}: give --config.text.tokenizer={stored}, or leave out warm_start."
            )


def label_values(corpus: Corpus, label: str, text: str = "the text", remedy: str = "") -> tuple[str, ...]:
    """Returns the values of a label. Raises UserError if the text, named so in the message, does not have it."""
    if label not in corpus.label_values:
        available = ", ".join(sorted(corpus.label_values)) or "none"
        raise UserError(f"{text} has no label {label!r}; it has: {available}.{remedy}")
    return corpus.label_values[label]
