"""The config.json of MDLM and BD3-LM as settings of our methods, and back."""

from typing import Any, NamedTuple

from jtextdiff.cli.errors import UserError
from jtextdiff.methods.block_diffusion import BlockDiffusion
from jtextdiff.methods.masked import Masked
from jtextdiff.pretrained.dit_layout import Sizes
from jtextdiff.pretrained.vocabulary import num_rows

PLAIN = {
    "expansion": 4,
    "activation": "gelu_tanh",
    "attention_bias": False,
    "norm": "pre",
    "norm_epsilon": 1e-5,
    "positions": "rotary",
    "rotary_base": 10_000.0,
    "causal": False,
    "time": "add",
}
"""Settings of the trunk that every network in this layout has."""

NETWORK = (*PLAIN, "num_layers", "width", "num_heads", "max_length")
"""Settings of the trunk that come from the checkpoint. The others change how it is trained and computed."""
OUTSIDE_TRUNK = ("reads_length", "block_size")
"""Settings of a method that come from the checkpoint."""

CONSTANT = {"time_conditioning": False, "causal": False, "adaln": True, "cross_attn": True}
"""Fields of config.json that the networks read here share, if they have them."""


class Kind(NamedTuple):
    """What a `model_type` of config.json means."""

    method: type
    config_file: str  # whose method it is
    prefix: str  # of the names of its tensors
    buffers: dict[str, str]  # tensors that are no parameters and may be absent, and their shapes


ROTATION = {"backbone.rotary_emb.inv_freq": "R"}
KINDS = {
    "mdlm": Kind(Masked, "configs/masked.py", "backbone.", ROTATION),
    "bd3lm": Kind(
        BlockDiffusion,
        "configs/block_diffusion.py",
        "backbone.",
        {**ROTATION, "sampling_eps_min": "1", "sampling_eps_max": "1"},
    ),
}
"""By `model_type`."""


def kind_of(config: dict[str, Any], source: str) -> Kind:
    """Returns the kind of a checkpoint. Raises UserError if it is unknown, or conditioned on the time."""
    name = config.get("model_type")
    if name not in KINDS:
        raise UserError(
            f"{source} has the model_type {name!r} in config.json; those that can be read: {', '.join(KINDS)}."
        )
    if config.get("time_conditioning"):
        raise UserError(f"{source} is conditioned on the time (time_conditioning is true), which is not supported yet.")
    for field, value in CONSTANT.items():
        if config.get(field, value) is not value:
            raise UserError(f"{source}: config.json has {field} = {config[field]!r}; only {value!r} can be read.")
    return KINDS[name]


def sizes_of(config: dict[str, Any], source: str) -> Sizes:
    """Returns the sizes of a network. Raises UserError for one that is missing or impossible."""
    fields = ("vocab_size", "hidden_dim", "cond_dim", "n_blocks", "n_heads")
    width, heads = (_positive(config, field, source) for field in ("hidden_dim", "n_heads"))
    if width % (2 * heads):
        raise UserError(
            f"{source}: hidden_dim must divide into n_heads heads of an even width; config.json has {width} and "
            f"{heads}."
        )
    return Sizes(*(_positive(config, field, source) for field in fields))


def network_settings(config: dict[str, Any], source: str) -> dict[str, Any]:
    """Returns the fields of the method, and of its trunk, that the network of a checkpoint determines."""
    kind, sizes = kind_of(config, source), sizes_of(config, source)
    shape = {"num_layers": sizes.num_blocks, "width": sizes.width, "num_heads": config["n_heads"]}
    trunk = {**PLAIN, **shape, "max_length": _positive(config, "model_length", source)}
    if kind.method is BlockDiffusion:
        return {"trunk": trunk, "block_size": _positive(config, "block_size", source)}
    return {"trunk": trunk, "reads_length": False}


def config_of(method: Masked, cond_dim: int) -> dict[str, Any]:
    """Returns the config.json of a masked model. Raises UserError naming a setting that the layout lacks."""
    expected = {f"trunk.{name}": value for name, value in PLAIN.items()}
    expected |= {"reads_length": False, "self_conditioning": 0.0}
    for name, value in expected.items():
        owner = method.trunk if name.startswith("trunk.") else method
        if (found := getattr(owner, name.removeprefix("trunk."))) != value:
            raise UserError(f"method.{name} is {found!r}; the published layout of MDLM has only {value!r}.")
    return {
        "model_type": "mdlm",
        "architectures": ["MDLM"],
        "vocab_size": num_rows(method.text_spec),
        "hidden_dim": method.trunk.width,
        "cond_dim": cond_dim,
        "n_blocks": method.trunk.num_layers,
        "n_heads": method.trunk.num_heads,
        "model_length": max(method.text_spec.length, method.trunk.max_length),
        "dropout": method.trunk.dropout,
        "time_conditioning": False,
        "return_dict": False,
    }


def _positive(config: dict[str, Any], field: str, source: str) -> int:
    value = config.get(field)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UserError(f"{source}: config.json needs {field}, a whole number of at least 1; it has {value!r}.")
    return value
