"""The config.json of MDLM and BD3-LM as settings of our methods, and back."""

from typing import Any, NamedTuple

from jtextdiff.cli.errors import UserError
from jtextdiff.methods.block_diffusion import BlockDiffusion
from jtextdiff.methods.masked import Masked
from jtextdiff.pretrained.layouts.dit import fold
from jtextdiff.pretrained.layouts.dit_layout import Sizes, shapes
from jtextdiff.pretrained.network import Network, check_constants, check_fits, check_heads, positive
from jtextdiff.pretrained.vocabulary import num_rows

PLAIN = {
    "expansion": 4,
    "mlp_width": None,
    "activation": "gelu_tanh",
    "gated": False,
    "mlp_bias": True,
    "num_kv_heads": None,
    "head_width": None,
    "qk_norm": False,
    "attention_bias": False,
    "attention_out_bias": None,
    "norm": "pre",
    "normalization": "layer",
    "norm_epsilon": 1e-5,
    "norm_bias": True,
    "input_norm": False,
    "window": None,
    "full_every": 1,
    "window_rotary_base": None,
    "positions": "rotary",
    "rotary_base": 10_000.0,
    "causal": False,
    "time": "add",
}
"""Settings of the trunk that every network in this layout has."""

HEAD = {"tied": False, "bias": True, "transform": False, "shifted": False}
"""Settings of its head."""

CONSTANT = {"time_conditioning": False, "causal": False, "adaln": True, "cross_attn": True}
"""Fields of config.json that the networks read here share, if they have them."""


class Kind(NamedTuple):
    """What a `model_type` of config.json means."""

    method: type
    config_file: str  # whose method it is
    prefix: str  # of the names of its tensors
    buffers: dict[str, str]  # tensors that are no parameters and may be absent, and their shapes; "": a number


ROTATION = {"backbone.rotary_emb.inv_freq": "R"}
KINDS = {
    "mdlm": Kind(Masked, "configs/masked.py", "backbone.", ROTATION),
    "bd3lm": Kind(
        BlockDiffusion,
        "configs/block_diffusion.py",
        "backbone.",
        {**ROTATION, "sampling_eps_min": "", "sampling_eps_max": ""},
    ),
}
"""By `model_type`."""


def kind_of(config: dict[str, Any], source: str) -> Kind:
    """Returns the kind of a checkpoint. Raises UserError if it is conditioned on the time, or otherwise another one."""
    if config.get("time_conditioning"):
        raise UserError(f"{source} is conditioned on the time (time_conditioning is true), which is not supported yet.")
    check_constants(config, CONSTANT, source)
    return KINDS[config["model_type"]]


def sizes_of(config: dict[str, Any], source: str) -> Sizes:
    """Returns the sizes of a network. Raises UserError for one that is missing or impossible."""
    fields = ("vocab_size", "hidden_dim", "cond_dim", "n_blocks", "n_heads")
    check_heads(config, "hidden_dim", "n_heads", source)
    return Sizes(*(positive(config, field, source) for field in fields))


def network_settings(config: dict[str, Any], source: str) -> dict[str, Any]:
    """Returns the fields of the method, and of its trunk, that the network of a checkpoint determines."""
    kind, sizes = kind_of(config, source), sizes_of(config, source)
    shape = {"num_layers": sizes.num_blocks, "width": sizes.width, "num_heads": config["n_heads"]}
    trunk = {**PLAIN, **shape, "max_length": positive(config, "model_length", source)}
    if kind.method is BlockDiffusion:
        return {"trunk": trunk, "block_size": positive(config, "block_size", source)}
    return {"trunk": trunk, "reads_length": False, "head": HEAD}


def dit_network(config: dict[str, Any], source: str) -> Network:
    """Returns the network of a checkpoint. Raises UserError for a config that cannot be read."""
    kind, sizes = kind_of(config, source), sizes_of(config, source)
    return Network(
        model_type=config["model_type"],
        method=kind.method,
        config_file=kind.config_file,
        settings=network_settings(config, source),
        prefix=kind.prefix,
        tensors=shapes(sizes),
        unread=shapes(sizes, kind.buffers),
        copies={},
        rows=sizes.rows,
        mask=None,
        mask_kind="row",
        fold=lambda read, place: fold(read, sizes.num_blocks, place),
    )


def config_of(method: Masked, cond_dim: int) -> dict[str, Any]:
    """Returns the config.json of a masked model. Raises UserError naming a setting that the layout lacks."""
    expected = {f"trunk.{name}": value for name, value in PLAIN.items()}
    expected |= {f"head.{name}": value for name, value in HEAD.items()}
    expected |= {"reads_length": False, "self_conditioning": 0.0}
    check_fits(method, expected, "MDLM")
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
