"""A trained model as controls need it, and results cached per model."""

import functools
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Protocol, TypeVar
from weakref import WeakKeyDictionary

from jtextdiff.data.tokenizer import Tokenizer
from jtextdiff.methods.method import Method
from jtextdiff.nets.functional import Params

Request = TypeVar("Request", bound=Hashable)
Result = TypeVar("Result")

MAX_RESULTS = 512
"""Results held per model and function before all of them are dropped."""


class TrainedModel(Protocol):
    """A method with its parameters and its tokenizer; `inference.model.Model` is one."""

    @property
    def run(self) -> Path | None:
        """The run's directory, which holds its trained controls; None for a model that was not loaded from one."""
        ...

    @property
    def method(self) -> Method: ...

    @property
    def params(self) -> Params: ...

    @property
    def tokenizer(self) -> Tokenizer: ...


def cached_per_model(
    function: Callable[[Request, TrainedModel], Result],
) -> Callable[[Request, TrainedModel], Result]:
    """Caches `function(request, model)` for as long as the model lives. A result must not refer to the model itself.

    Results hold parameters of the model, so a cache that outlived models would hold their device memory.
    """
    results_of: WeakKeyDictionary[TrainedModel, dict[Request, Result]] = WeakKeyDictionary()

    @functools.wraps(function)
    def cached(request: Request, model: TrainedModel) -> Result:
        results = results_of.setdefault(model, {})
        if request not in results:
            if len(results) >= MAX_RESULTS:
                results.clear()
            results[request] = function(request, model)
        return results[request]

    return cached
