"""A whole sampler as one file: a compiled program with its parameters, from a seed to texts.

It is StableHLO, serialised by jax.export. Reading it needs jax and flatbuffers, neither this library nor its configs.
"""

from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from jtextdiff.cli.errors import UserError
from jtextdiff.data.tokenizer import Tokenizer
from jtextdiff.diffusion.randomness import keys_for
from jtextdiff.methods.components.types import nothing_given
from jtextdiff.methods.method import Method
from jtextdiff.nets.functional import Params
from jtextdiff.pretrained.export_files import CARD, whole_folder

PROGRAM = "sampler.jax"

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")

READER = """# {name}

A sampler of {num} texts of up to {length} tokens: {description}. It was exported with its parameters for
{platforms}, and needs jax, flatbuffers, numpy and tokenizers:

```python
from pathlib import Path

import jax
import numpy
import tokenizers

sample = jax.export.deserialize(bytearray(Path("{program}").read_bytes())).call
tokenizer = tokenizers.Tokenizer.from_file("tokenizer.json")
for text in numpy.asarray(sample(numpy.uint32(0))).tolist():  # a seed
    print(tokenizer.decode(text[: text.index({eos})] if {eos} in text else text))
```
"""


def sampler_program(method: Method, params: Params, num: int, platforms: Sequence[str]) -> bytes:
    """Returns the serialised function from a seed (uint32) to `num` texts of ids [num, length], PAD after EOS.

    They are the texts that the model samples with this seed. The program holds the parameters. Raises UserError for
    settings that it cannot have.
    """
    if num < 1:
        raise UserError(f"num must be at least 1, got {num}.")
    if wrong := set(platforms) - set(PLATFORMS):
        raise UserError(f"platforms must be among {', '.join(PLATFORMS)}, got {', '.join(sorted(wrong))}.")

    def sample(seed: Int[Array, ""]) -> Int[Array, "n l"]:
        keys = keys_for(jax.random.key(seed), jnp.arange(num))
        return method.sample(params, keys, nothing_given(num, method.text_spec.length)).tokens

    seed = jax.ShapeDtypeStruct((), jnp.uint32)
    return bytes(jax.export.export(jax.jit(sample), platforms=tuple(platforms))(seed).serialize())


def write_program(
    out: Path, method: Method, params: Params, tokenizer: Tokenizer, *, num: int, platforms: Sequence[str]
) -> None:
    """Writes the program, the tokenizer and a README with the lines that read them into a new folder."""
    program = sampler_program(method, params, num, platforms)
    with whole_folder(out) as folder:
        (folder / PROGRAM).write_bytes(program)
        tokenizer.save(folder)
        card = READER.format(
            name=out.name,
            num=num,
            length=method.text_spec.length,
            description=f"{type(method).__name__}, {method.sampler.name}",
            platforms=" and ".join(platforms),
            program=PROGRAM,
            eos=tokenizer.eos,
        )
        (folder / CARD).write_text(card, encoding="utf-8")
