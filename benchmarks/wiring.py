"""From a measure's name to its function, called with what its parameters ask for.

A file that is not there, or has no such function, is told as `Missing`: the other questions go on.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

Figures = dict[str, Any]
"""What one run found: numbers by their name, whose end says the unit; texts are remarks."""

DATABASE = ("database_url", "postgres_url")
BROKER = ("broker_url", "amqp_url")


class Missing(Exception):
    """The question's file or function is not there."""


def find(function: str) -> Callable[..., Figures]:
    """Return the function that `module:name` names, beneath `benchmarks`.

    Raises:
        Missing: there is no such module or function.
    """
    module_name, _, name = function.partition(":")
    full = f"{__package__}.{module_name}"
    try:
        module = import_module(full)
    except ModuleNotFoundError as error:
        if error.name != full:
            raise
        raise Missing(f"benchmarks/{module_name.replace('.', '/')}.py is not there") from None
    found = getattr(module, name, None)
    if not callable(found):
        raise Missing(f"benchmarks/{module_name.replace('.', '/')}.py has no function {name}")
    return found  # type: ignore[no-any-return]


def wants(function: Callable[..., Figures], names: tuple[str, ...]) -> bool:
    """Whether the function has a parameter of one of these names."""
    return any(name in inspect.signature(function).parameters for name in names)


def call(function: Callable[..., Figures], given: Mapping[str, Any]) -> Figures:
    """Call the function with those of the given values that it has parameters for.

    Raises:
        TypeError: it needs something that is not given.
    """
    values = dict(given)
    for same in (DATABASE, BROKER):
        known = next((values[name] for name in same if name in values), None)
        if known is not None:
            values |= dict.fromkeys(same, known)
    parameters = inspect.signature(function).parameters
    needed = [name for name, one in parameters.items() if one.default is one.empty]
    unmet = [name for name in needed if name not in values]
    if unmet:
        raise TypeError(
            f"{function.__module__}.{function.__name__} wants {', '.join(unmet)}; "
            f"a measure gives {', '.join(sorted(values))}"
        )
    figures = function(**{name: values[name] for name in parameters if name in values})
    if not isinstance(figures, dict):
        raise TypeError(f"{function.__name__} returned {type(figures).__name__}, no dict")
    return figures
