"""A trained model: a method, its parameters and its tokenizer, with texts in and texts out."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jtextdiff.cli.errors import UserError, mistakes
from jtextdiff.cli.output import say
from jtextdiff.control.controls import Control
from jtextdiff.control.resolve import Asked, asked
from jtextdiff.control.trained import Steered
from jtextdiff.data.batches import Batch
from jtextdiff.data.tokenizer import Tokenizer
from jtextdiff.devices.compilation_cache import remember_programs
from jtextdiff.devices.sharding import make_mesh, mesh_of, num_shards, shardings
from jtextdiff.diffusion.randomness import keys_for
from jtextdiff.inference.batched import FEW, ROWS, Drawn, compiled_once, turns, written
from jtextdiff.inference.editing import SETTINGS, Rewritten, Work, rewritten
from jtextdiff.inference.prompts import read_template, read_texts, with_lengths
from jtextdiff.methods.components.types import Given
from jtextdiff.methods.method import Featured, Latent, Method
from jtextdiff.nets.functional import Params
from jtextdiff.run.checkpoints import restore, shapes_of
from jtextdiff.run.config import Config, build, override
from jtextdiff.run.workdir import read_config
from jtextdiff.sampling.energies import Energy


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Model:
    """What `load` returns and what training samples from."""

    method: Method
    params: Params
    tokenizer: Tokenizer
    config: Config
    step: int
    run: Path | None = None  # where its controls are found

    @functools.cached_property
    def steered(self) -> Steered:
        """The model as controls see it."""
        return Steered(run=self.run, method=self.method, params=self.params, tokenizer=self.tokenizer)

    def sample(
        self,
        num: int = 1,
        *,
        seed: int = 0,
        template: str | None = None,
        control: Control | None = None,
        progress: Callable[[int], None] = lambda done: None,
        **sampler: Any,
    ) -> list[str]:
        """`num` texts. Text i depends on the seed and on i alone, not on how many are asked for.

        `template` holds words that stay and a [MASK] for each word to be written; `control` is what is wanted, see
        `jtextdiff.controls`. `steps=`, `name=` and the other settings of the method's sampler may be given. `progress`
        is told how many are done.
        """
        tokens = self.draw(num, seed=seed, template=template, control=control, progress=progress, **sampler).tokens
        return [self.tokenizer.decode(row) for row in tokens]

    def infill(self, template: str, num: int = 1, *, seed: int = 0, **sampler: Any) -> list[str]:
        """`num` ways to write the [MASK]s of a template; its other words stay."""
        return self.sample(num, seed=seed, template=template, **sampler)

    def draw(
        self,
        num: int,
        *,
        seed: int = 0,
        template: str | Sequence[str] | None = None,
        control: Control | Sequence[Control] | None = None,
        progress: Callable[[int], None] = lambda done: None,
        **sampler: Any,
    ) -> Drawn:
        """The samples as ids, and the network calls that each has needed. Each text may have its own control."""
        method, key = self.with_sampler(sampler), jax.random.key(seed)
        keys, (given, energies) = keys_for(key, jnp.arange(num)), self.given(template, control, num)
        return written(method, "sample", self.params, keys, given, energies, progress)

    def edit(self, texts: Sequence[str], **how: Any) -> list[str]:
        """Each text rewritten; see `rewritten`, of which these are the texts."""
        return [row.text for row in self.rewritten(texts, **how)]

    def rewritten(self, texts: Sequence[str], *, control: Control | None = None, **how: Any) -> list[Rewritten]:
        """Each text rewritten, and what became of it: see `rewriting.rewritten`, whose settings are `how`, and the
        sampler's. Raises UserError for a text longer than the model was made for."""
        own = {name: how.pop(name) for name in SETTINGS if name in how}
        wanted = Asked(None, 0) if control is None else asked_once(self, control)
        batch = read_texts(texts, self.tokenizer, self.method.language)
        return rewritten(Work(self.with_sampler(how), self.params, self.tokenizer, batch, wanted), **own)

    def nll(self, texts: Sequence[str], *, seed: int = 0) -> list[float]:
        """−log p of each text in nats, its end included: exact, or the bound that `method.bound` names.

        Raises UserError for a text longer than the model was made for.
        """
        batch = self.batch(texts)
        lengths = batch.valid.sum(axis=1) if len(texts) > FEW else np.full(len(texts), self.method.language.length)
        nats, mesh = np.zeros(len(texts)), mesh_of(self.params)
        # Noise is a turn's: turns are as large on many devices as on one.
        for turn, (rows, real, width) in enumerate(turns(lengths, self.method.language.length)):
            key = jax.random.fold_in(jax.random.key(seed), turn)
            cut = Batch(batch.tokens[rows, :width], batch.valid[rows, :width], batch.given[rows, :width], {})
            nats[rows[:real]] = np.asarray(compiled_once(self.method, "nll", mesh)(self.params, key, cut))[:real]
        return nats.tolist()

    def energy(self, texts: Sequence[str], control: Control) -> list[float]:
        """What a control says of finished texts: its energy, nats, the weighted sum of −log p of what is wanted."""
        wanted, method = asked_once(self, control).energy, cast(Any, self.method)
        found: list[float] = []
        if wanted is None:
            raise UserError(f"The control {control} has no energy to choose by: it is kept or told.")
        for start in range(0, len(texts), ROWS[-1]):
            batch = self.batch(texts[start : start + ROWS[-1]])
            if isinstance(method, Latent):
                x_0, valid = method.encode(self.params, batch.tokens, batch.valid), None
            else:
                x_0, valid = method.states.clean(self.params, batch)  # asked() has refused all others
            found += np.asarray(wanted(x_0, 0.0, valid)).tolist()
        return found

    def features(self, texts: Sequence[str]) -> Float[np.ndarray, "n w"]:
        """What the network has made of each text: its last hidden states, in the mean over the text.

        Raises TypeError for a method that has none to show.
        """
        if not isinstance(self.method, Featured):
            raise TypeError(f"{type(self.method).__name__} has no features to show.")
        batch, width, mesh = self.batch(texts), self.method.language.length, mesh_of(self.params)
        found = []
        for rows, real, _ in turns(np.full(len(texts), width), width, num_shards(mesh)):
            cut = jax.tree.map(lambda leaf, rows=rows: leaf[rows], batch)
            found.append(np.asarray(compiled_once(self.method, "features", mesh)(self.params, cut))[:real])
        return np.concatenate(found)

    def batch(self, texts: Sequence[str]) -> Batch:
        """Texts as ids, EOS after each, PAD after that. Raises UserError for one longer than the model was made for."""
        return read_texts(texts, self.tokenizer, self.method.language)

    def num_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, EOS included."""
        return [len(row) + 1 for row in self.tokenizer.encode(list(texts))]

    def given(
        self, template: str | Sequence[str] | None, control: Control | Sequence[Control] | None, num: int
    ) -> tuple[Given, list[Energy | None]]:
        """What is given, with the lengths that controls ask for, and the energy to follow, one or one of each text."""
        given = read_template(template, self.tokenizer, self.method, num)
        controls = [control] if control is None or isinstance(control, Control) else list(control)
        if len(controls) not in (1, num):
            raise UserError(f"There are {len(controls)} controls for {num} texts: give one, or one for each.")
        found = {each: Asked(None, 0) if each is None else asked_once(self, each) for each in dict.fromkeys(controls)}
        wanted = [found[each] for each in controls]
        lengths = [each.length for each in wanted]
        if any(length > 0 for length in lengths) and template is not None:
            raise UserError("A template has a length of its own: leave out what asks for one, or the template.")
        energies = [each.energy for each in wanted]
        if any(each.label for each in wanted):
            given = given._replace(label=jnp.broadcast_to(jnp.asarray([each.label for each in wanted]), (num,)))
        return (with_lengths(given, lengths, self.method) if template is None else given), energies

    def with_sampler(self, settings: dict[str, Any]) -> Method:
        """The method with settings of its sampler changed, checked like the command line's overrides."""
        changed = [f"method.sampler.{name}={value}" for name, value in settings.items() if value is not None]
        return build(_overridden(self.config, changed).method) if changed else self.method


@functools.lru_cache(maxsize=256)
def asked_once(model: Model, control: Control) -> Asked:
    """What a control asks of a model: read from disk once, however often texts are written."""
    return asked(control, model.steered)


def load(run: str | Path, *, at: int | str = "latest", overrides: Sequence[str] = ()) -> Model:
    """A trained model from its run directory; `at` is "latest", "best" or a step.

    `overrides` such as "method.sampler.steps=50" change the stored config. The parameters are whole on each device,
    whatever mesh they were trained on; "mesh.fsdp=8" and "mesh.tensor=8" divide them. Raises UserError if there is no
    run, or none of its checkpoints can be read.
    """
    remember_programs()
    workdir = Path(run)
    config = read_config(workdir)
    config.mesh.update(data=-1, fsdp=1, tensor=1)
    if "base" in config:
        raise UserError(f"{run} is a control, and writes no texts. Sample with --checkpoint {config.base} --control.")
    config = _overridden(config, overrides)
    method = build(config.method)
    with mistakes(FileNotFoundError, ValueError):
        tokenizer = Tokenizer.load(workdir / "tokenizer")
    shapes = shapes_of(jax.eval_shape(method.init, jax.random.key(0)))
    shapes = shapes_of(shapes, shardings(make_mesh(**config.mesh), shapes))
    found = restore(workdir, {"model": shapes}, at=at, tell=say)
    if found is None:
        raise UserError(f"There are no checkpoints in {workdir}/checkpoints yet. Let the training reach its first.")
    step, parts = found
    return Model(method=method, params=parts["model"], tokenizer=tokenizer, config=config, step=step, run=workdir)


def _overridden(config: Config, overrides: Sequence[str]) -> Config:
    """The config with overrides; a sampler without steps says so."""
    if "steps" not in config.method.sampler and any(text.startswith("method.sampler.steps=") for text in overrides):
        name = config.method["class"].partition(":")[2]
        raise UserError(f"{name} has no number of steps to set: it writes one token a step.")
    return override(config, overrides)
