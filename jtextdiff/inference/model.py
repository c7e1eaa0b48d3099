"""A trained model: sample, infill, edit, nll."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jtextdiff.cli.errors import UserError, mistakes
from jtextdiff.cli.output import say
from jtextdiff.control.consistency import check_values
from jtextdiff.control.controls import Control, as_control
from jtextdiff.control.fields import learned_field
from jtextdiff.control.resolve import resolve
from jtextdiff.data.batches import Batch
from jtextdiff.data.tokenizer import Tokenizer
from jtextdiff.devices.sharding import make_mesh, mesh_of, num_shards
from jtextdiff.diffusion.randomness import keys_for
from jtextdiff.inference.batched import BATCH_SIZES, SMALL_BATCH, LengthBucket, jitted, map_batches
from jtextdiff.inference.editing.edits import UNKNOWN_IN_EDITS, edit_texts
from jtextdiff.inference.editing.flow_settings import FlowSettings
from jtextdiff.inference.editing.pieces import check_pieces, edit_by_pieces
from jtextdiff.inference.editing.types import Edit, EditBatch
from jtextdiff.inference.prompts import (
    check_ids,
    check_number,
    check_texts,
    note_on_unknown,
    read_chat,
    read_template,
    read_texts,
    unknown_words,
    with_lengths,
)
from jtextdiff.inference.sample_batches import SampleOutput, run_batched
from jtextdiff.methods.components.types import Given
from jtextdiff.methods.method import Controllable, HasFeatures, HasOrderedLikelihood, Method
from jtextdiff.nets.functional import Params
from jtextdiff.run.checkpoints import load_params
from jtextdiff.run.config import Config, build, is_control
from jtextdiff.run.config_files import override_run
from jtextdiff.run.workdir import read_config
from jtextdiff.sampling.energies import Energy


def ignore_progress(num_done: int) -> None:
    """Does nothing."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Model:
    """A method with its parameters and tokenizer, returned by `load`; training draws its samples from one, too.

    `control` is a requirement on the text, see `jtextdiff.controls`. `**sampler` are settings of the method's sampler,
    such as `steps=` and `name=`. `progress` receives the number of texts in each finished batch.
    """

    method: Method
    params: Params
    tokenizer: Tokenizer
    config: Config
    step: int
    run: Path | None = None  # the directory with its trained controls

    def sample(
        self,
        num: int = 1,
        *,
        seed: int = 0,
        template: str | None = None,
        control: Control | str | None = None,
        progress: Callable[[int], None] = ignore_progress,
        **sampler: Any,
    ) -> list[str]:
        """Draws `num` texts. Text i depends on the seed and on i alone, not on `num`.

        `template` holds words that stay and a [MASK] for each word to be written.
        """
        output = self.draw(num, seed=seed, template=template, control=control, progress=progress, **sampler)
        return [self.tokenizer.decode(row) for row in output.tokens]

    def infill(self, template: str, num: int = 1, *, seed: int = 0, **sampler: Any) -> list[str]:
        """Fills the [MASK]s of a template in `num` ways; its other words stay."""
        return self.sample(num, seed=seed, template=template, **sampler)

    def chat(self, question: str, num: int = 1, *, length: int = 128, seed: int = 0, **sampler: Any) -> list[str]:
        """Answers a question in `num` ways with up to `length` tokens each, by the tokenizer's chat template.

        Raises UserError for a method other than Masked, a tokenizer without a template, and a prompt that is too long.
        """
        method, num = self.with_sampler(sampler), check_number(num, "num", 0)
        chat = read_chat(question, self.tokenizer, method, num, length)
        keys = keys_for(jax.random.key(check_number(seed, "seed")), jnp.arange(num))
        output = run_batched(chat.method, "sample", self.params, keys, chat.given, [None])
        return [self.tokenizer.decode(chat.answer(row)) for row in output.tokens]

    def draw(
        self,
        num: int,
        *,
        seed: int = 0,
        template: str | Sequence[str] | None = None,
        control: Control | str | Sequence[Control | str | None] | None = None,
        progress: Callable[[int], None] = ignore_progress,
        **sampler: Any,
    ) -> SampleOutput:
        """Draws `num` texts as ids, with their network calls. Each text may have its own template and control."""
        key, num = jax.random.key(check_number(seed, "seed")), check_number(num, "num", 0)
        method, keys = self.with_sampler(sampler), keys_for(key, jnp.arange(num))
        given, energies = self.inputs(template, control, num)
        return run_batched(method, "sample", self.params, keys, given, energies, progress)

    def edit(self, texts: Sequence[str], **settings: Any) -> list[str]:
        """Edits each text; takes the settings of `edit_texts`. Prints which words the model does not know."""
        edits = self.edit_texts(texts, **settings)
        if note := note_on_unknown([edit.unknown for edit in edits]):
            say(f"warning: {note} {UNKNOWN_IN_EDITS}")
        return [edit.text for edit in edits]

    def edit_texts(
        self,
        texts: Sequence[str],
        *,
        control: Control | str | None = None,
        strength: float | None = None,
        hold: Sequence[str] = (),
        flow: FlowSettings | None = None,
        seed: int = 0,
        ids: Sequence[int] | None = None,
        pieces: bool = False,
        progress: Callable[[int], None] = ignore_progress,
        **sampler: Any,
    ) -> list[Edit]:
        """Edits each text and returns how far its latent moved, too; see `editing.edit_texts`.

        Raises UserError for a text longer than the model was made for; with `pieces`, such a text is edited piece by
        piece, see `pieces.edit_by_pieces`.
        """
        texts, seed = check_texts(texts), check_number(seed, "seed")
        ids = check_ids(ids, len(texts))
        if flow is not None and not isinstance(flow, FlowSettings):
            raise UserError(f"flow is a {type(flow).__name__}, {flow!r}; expected FlowSettings(…).")
        if pieces:
            check_pieces(self.method, as_control(control))
            settings = {"control": control, "strength": strength, "hold": hold, "flow": flow, "seed": seed, **sampler}
            return edit_by_pieces(
                functools.partial(self.edit_texts, progress=progress, **settings),
                self.num_tokens,
                texts,
                ids,
                longest=self.method.text_spec.length,
            )
        method, conditioning = self.with_sampler(sampler), resolve(as_control(control), self)
        check_values(as_control(control), self)
        batch = self.batch(texts)
        field = learned_field(as_control(control), self, flow.push) if flow is not None and flow.learned else None
        unknown = unknown_words(texts, batch, self.tokenizer)
        edits = EditBatch(method, self.params, self.tokenizer, batch, conditioning, unknown, field)
        edited = edit_texts(edits, strength=strength, hold=hold, flow=flow, seed=seed, ids=ids, progress=progress)
        return [edit._replace(unknown=tuple(words)) for edit, words in zip(edited, unknown, strict=True)]

    @property
    def has_order(self) -> bool:
        """Returns whether `nll` can follow the order in which the sampler draws tokens."""
        return isinstance(self.method, HasOrderedLikelihood) and self.method.sampler.has_order

    def nll(self, texts: Sequence[str], *, seed: int = 0, in_order: bool = False) -> list[float]:
        """Returns −log p of each text in nats, its end included: exact, or the bound that `method.bound` names.

        `in_order`: exact, of drawing it in the order of the sampler, where that `has_order`, at temperature 1 without
        top-p and corrections. A word outside the vocabulary counts as one unknown word, which is printed. Raises
        UserError for a text longer than the model was made for, and if the sampler has no order.
        """
        if in_order and not self.has_order:
            raise UserError(
                f"nll(in_order=True): the sampler {self.method.sampler.name} has no order with an exact likelihood."
            )
        texts, seed = check_texts(texts), check_number(seed, "seed")
        if not texts:
            return []
        batch, longest = self.batch(texts), self.method.text_spec.length
        if note := note_on_unknown(unknown_words(texts, batch, self.tokenizer)):
            say(f"warning: {note} Each is scored as one unknown word, whatever its letters.")
        lengths = batch.valid.sum(axis=1) if len(texts) > SMALL_BATCH else np.full(len(texts), longest)
        name = "nll_in_order" if in_order else "nll"
        nll, key = jitted(self.method, name, mesh_of(self.params)), jax.random.key(seed)

        def nll_of(bucket: LengthBucket, batch: Batch) -> Any:
            return nll(self.params, jax.random.fold_in(key, bucket.number), batch)

        # Each batch has its own noise, so batches are as large on many devices as on one.
        return map_batches(nll_of, batch, lengths, longest=longest).tolist()

    def energy(self, texts: Sequence[str], control: Control | str) -> list[float]:
        """Returns a control's energy of finished texts, in nats: the weighted sum of −log p(part of the control).

        Raises UserError for a control without an energy.
        """
        texts, energy = check_texts(texts), resolve(as_control(control), self).energy
        if energy is None:
            raise UserError(f"The control {control} has no energy to rank by: a length or a label is enforced exactly.")
        nats = []
        for start in range(0, len(texts), BATCH_SIZES[-1]):
            batch = self.batch(texts[start : start + BATCH_SIZES[-1]])
            state, valid = jnp.asarray(batch.tokens), jnp.asarray(batch.valid)
            if isinstance(self.method, Controllable):
                state, valid = self.method.clean_state(self.params, batch)
            nats += np.asarray(energy(state, 0.0, valid)).tolist()
        return nats

    def features(self, texts: Sequence[str]) -> Float[np.ndarray, "n w"]:
        """Returns the mean over each text of the network's last hidden states.

        Raises TypeError for a method without features.
        """
        if not isinstance(self.method, HasFeatures):
            raise TypeError(f"{type(self.method).__name__} has no features.")
        texts, longest, mesh = check_texts(texts), self.method.text_spec.length, mesh_of(self.params)
        features, lengths = jitted(self.method, "features", mesh), np.full(len(texts), longest)

        def features_of(bucket: LengthBucket, batch: Batch) -> Any:
            return features(self.params, batch)

        return map_batches(features_of, self.batch(texts), lengths, longest=longest, shards=num_shards(mesh))

    def batch(self, texts: Sequence[str]) -> Batch:
        """Returns texts as ids, EOS after each and PAD after that. Raises UserError for one longer than the model's."""
        return read_texts(texts, self.tokenizer, self.method.text_spec)

    def num_tokens(self, texts: Sequence[str]) -> list[int]:
        """Returns the tokens of each text, EOS included."""
        return [len(row) + 1 for row in self.tokenizer.encode(check_texts(texts))]

    def inputs(
        self,
        template: str | Sequence[str] | None,
        control: Control | str | Sequence[Control | str | None] | None,
        num: int,
    ) -> tuple[Given, list[Energy | None]]:
        """Returns what `num` samples are given, lengths of controls included, and one energy for all or one for each.

        Raises UserError for a number of controls other than one or `num`, for one that requires no value of a label,
        and for a template whose length is not free.
        """
        given = read_template(template, self.tokenizer, self.method, num)
        several = isinstance(control, Iterable) and not isinstance(control, str | bytes | dict)
        controls: list[Any] = list(cast(Any, control)) if several else [control]
        if len(controls) not in (1, num):
            raise UserError(f"There are {len(controls)} controls for {num} texts: give one, or one for each.")
        controls = [as_control(control) for control in controls]
        resolved = {control: resolve(control, self) for control in dict.fromkeys(controls)}
        if not several:  # of several, each may be that of a real text
            check_values(controls[0], self)
        conditionings = [resolved[control] for control in controls]
        lengths = [conditioning.length for conditioning in conditionings]
        if any(length > 0 for length in lengths) and template is not None:
            raise UserError("A template has its own length: leave out controls that set one, or the template.")
        labels = [conditioning.label for conditioning in conditionings]
        if any(labels):
            given = given._replace(label=jnp.broadcast_to(jnp.asarray(labels), (num,)))
        energies = [conditioning.energy for conditioning in conditionings]
        return (with_lengths(given, lengths, self.method) if template is None else given), energies

    def with_sampler(self, settings: dict[str, Any]) -> Method:
        """Returns the method with settings of its sampler changed, checked like the command line's overrides."""
        changes = [f"method.sampler.{name}={value}" for name, value in settings.items() if value is not None]
        return build(_overridden(self.config, changes).method) if changes else self.method


def load(run: str | Path, *, at: int | str = "latest", overrides: Sequence[str] = ()) -> Model:
    """Loads a trained model from its run directory; `at` is "latest", "best" or a step.

    `overrides` such as "method.sampler.steps=50" change the stored config. The parameters are whole on each device,
    whatever mesh they were trained on; "mesh.fsdp=8" and "mesh.tensor=8" divide them. Raises UserError if there is no
    run, or none of its checkpoints can be read.
    """
    workdir = Path(run)
    config = read_config(workdir)
    config.mesh.update(data=-1, fsdp=1, tensor=1)
    if is_control(config):
        raise UserError(f"{run} is a control and generates no texts. Sample with --checkpoint {config.base} --control.")
    config = _overridden(config, overrides)
    method = build(config.method)
    with mistakes(FileNotFoundError, ValueError):
        tokenizer = Tokenizer.load(workdir / "tokenizer")
    step, params = load_params(workdir, method, make_mesh(**config.mesh), at=at)
    return Model(method=method, params=params, tokenizer=tokenizer, config=config, step=step, run=workdir)


def _overridden(config: Config, overrides: Sequence[str]) -> Config:
    """The config with overrides. Raises UserError for steps of a sampler that has none."""
    if "steps" not in config.method.sampler and any(text.startswith("method.sampler.steps=") for text in overrides):
        name = config.method["class"].partition(":")[2]
        raise UserError(f"{name} has no number of steps to set: it generates one token a step.")
    return override_run(config, overrides)
