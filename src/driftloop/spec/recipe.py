"""Recipes: a user's callables, named in a monitor file."""

import inspect
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from driftloop.errors import DriftloopError

TAKES = "a recipe takes (family, *, seed, **parameters), the last being retrain.parameters"


def load_recipe(name: str) -> Any:  # noqa: ANN401 - a user's callable; its door checks what it returns
    """Return the callable that `module:function` names.

    Raises:
        DriftloopError: the module does not import, or has no such callable.
    """
    module, _, function = name.partition(":")
    try:
        found = getattr(import_module(module), function)
    except (Exception, SystemExit) as error:  # a module of recipes is anybody's code
        raise DriftloopError(
            f"recipe {name!r} cannot be loaded: {type(error).__name__}: {error}",
            hint='write it as "module:function", of an installed package or a folder on PYTHONPATH'
            " (the working folder is not looked in by itself)",
        ) from error
    if not callable(found):
        raise DriftloopError(f"recipe {name!r} is not callable", hint=TAKES)
    return found


def check_call(recipe: Any, parameters: Mapping[str, object]) -> None:  # noqa: ANN401 - see `load_recipe`
    """Check that `recipe` can be called as recipes are, with `parameters`; it is not called.

    Raises:
        DriftloopError: it cannot.
    """
    try:
        taken = inspect.signature(recipe)
    except (TypeError, ValueError):
        return  # some of what is written in C does not tell: the first fit will
    try:
        taken.bind(None, seed=0, **parameters)
    except TypeError as error:
        raise DriftloopError(
            f"the recipe takes {taken}, and cannot be called as recipes are: {error}", hint=TAKES
        ) from error
