"""A function of the user's own, named as `PACKAGE.MODULE:FACTORY` on the command line."""

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from semires.stages.data.errors import InputError


def is_factory(name: str) -> bool:
    """Whether a model's name is that of a factory."""
    return ":" in name


def find_factory(name: str, option: str) -> Callable[..., Any]:
    """The function `name` that the user gave as `option`, e.g. "--model".

    Modules are looked for in the working directory too, as `python -m` does. InputError where there is no such factory;
    an exception of the user's own module is left as it is.
    """
    module_name, _, attribute = name.partition(":")
    if not module_name or not attribute:
        raise InputError(f"{option}: expected PACKAGE.MODULE:FACTORY, found {name!r}; name both")
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        # A module that is there and imports one that is not says so itself.
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise
        raise InputError(
            f"{option}: expected a module {module_name}, found none; run the command in the folder that holds it, or "
            "install it"
        ) from error
    except TypeError as error:  # importlib's for a name that begins with a dot
        if not module_name.startswith("."):
            raise
        raise InputError(
            f"{option}: expected a module's full name, found {module_name!r}; leave out the dot"
        ) from error
    factory = getattr(module, attribute, None)
    if not callable(factory):
        # Of what is built in there is no file.
        where = getattr(module, "__file__", None) or module_name
        raise InputError(f"{option}: expected a function {attribute!r} in {where}, found none; check the name")
    found: Callable[..., Any] = factory
    return found
