"""The config.json of MDLM, BD3-LM, SEDD, Duo, UDLM and GIDD as settings of our methods, and of MDLM back."""

import functools
from typing import Any

from jtextdiff.methods.block_diffusion import BlockDiffusion
from jtextdiff.methods.d3pm import D3PM
from jtextdiff.methods.masked import Masked
from jtextdiff.pretrained.layouts.dit import NUM_FREQUENCIES, fold
from jtextdiff.pretrained.layouts.dit_kinds import KINDS, Kind
from jtextdiff.pretrained.layouts.dit_layout import LABELS, SHAPES, Sizes, shapes
from jtextdiff.pretrained.layouts.dit_timed import timed_params
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


def sizes_of(config: dict[str, Any], source: str) -> Sizes:
    """Returns the sizes of a network. Raises UserError for one that is missing or impossible."""
    kind = KINDS[config["model_type"]]
    check_heads(config, kind.fields["width"], kind.fields["num_heads"], source)
    sizes = Sizes(**{name: positive(config, field, source) for name, field in kind.fields.items()})
    labels = positive(config, "cfg_num_classes", source) + 1 if config.get("cfg") else 0
    return sizes._replace(rows=sizes.rows + kind.extra_rows, labels=labels)


def dit_network(config: dict[str, Any], source: str) -> Network:
    """Returns the network of a checkpoint. Raises UserError for a config that cannot be read."""
    config, kind = _with_dots(config), KINDS[config["model_type"]]
    check_constants(config, kind.constants, source)
    sizes, timed = sizes_of(config, source), bool(config.get("time_conditioning", kind.timed))
    table = SHAPES | (LABELS if sizes.labels else {})
    params = functools.partial(timed_params, labelled=sizes.labels > 0) if timed else fold
    return Network(
        model_type=config["model_type"],
        method=kind.method,
        config_file=kind.config_file,
        settings=_settings(kind, sizes, config, timed, source),
        prefix=kind.prefix,
        tensors=shapes(sizes, table),
        unread=shapes(sizes, kind.buffers),
        copies={},
        rows=sizes.rows,
        mask=None,
        mask_kind=kind.mask_kind,
        fold=lambda read, place: params(read, sizes.num_blocks, place),
        computed=True,
    )


def _settings(kind: Kind, sizes: Sizes, config: dict[str, Any], timed: bool, source: str) -> dict[str, Any]:
    """Returns the fields of the method, and of its trunk, that the network of a checkpoint determines."""
    shape = {"num_layers": sizes.num_blocks, "width": sizes.width, "num_heads": sizes.num_heads}
    trunk = {**PLAIN, **shape, "max_length": sizes.length}
    if timed:
        trunk |= {"norm_bias": False, "time": "dit", "time_width": sizes.cond_dim, "time_features": 2 * NUM_FREQUENCIES}
    if kind.method is BlockDiffusion:
        return {"trunk": trunk, "block_size": positive(config, "block_size", source)}
    settings = {"trunk": trunk, "reads_length": False, "time_input": kind.time_input if timed else "none"}
    return settings | ({"kernel": "uniform", "form": "joint"} if kind.method is D3PM else {"head": HEAD})


def _with_dots(config: dict[str, Any], path: str = "") -> dict[str, Any]:
    """Returns a config without objects in it: {"model": {"length": 9}} has the field "model.length"."""
    fields: dict[str, Any] = {}
    for name, value in config.items():
        fields |= _with_dots(value, f"{path}{name}.") if isinstance(value, dict) else {f"{path}{name}": value}
    return fields


def config_of(method: Masked, cond_dim: int) -> dict[str, Any]:
    """Returns the config.json of a masked model. Raises UserError naming a setting that the layout lacks."""
    expected: dict[str, Any] = {"time_input": "none"} | {f"trunk.{name}": value for name, value in PLAIN.items()}
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
