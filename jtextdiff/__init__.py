"""jtextdiff: text diffusion in JAX.

import jtextdiff as jtd
model = jtd.load("runs/diffusion_lm")
model.sample(8, seed=0, steps=50)
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jtextdiff.control import controls as controls
    from jtextdiff.inference.model import Model as Model
    from jtextdiff.inference.model import load as load
    from jtextdiff.visualization.recording import record as record


__version__ = "0.1.0"

_HOMES = {
    "controls": "jtextdiff.control",
    "Model": "jtextdiff.inference.model",
    "load": "jtextdiff.inference.model",
    "record": "jtextdiff.visualization.recording",
}


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first used, so that `--help` need not wait for jax."""
    if name not in _HOMES:
        raise AttributeError(f"module 'jtextdiff' has no attribute {name!r}; it has {sorted(_HOMES)}")
    home = importlib.import_module(_HOMES[name])
    return getattr(home, name, None) or importlib.import_module(f"{_HOMES[name]}.{name}")


def __dir__() -> list[str]:
    return [*globals(), *_HOMES]
