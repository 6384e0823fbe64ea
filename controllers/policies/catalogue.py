"""Policies by name, and those of users by file: `servicectl policy web.example my_policy.py:Mine`."""

from __future__ import annotations

import importlib.util
import logging
import sys
from pathlib import Path
from types import ModuleType

from controllers.policies.base import Policy, PolicyError
from controllers.policies.by_client import Maglev, Ring
from controllers.policies.by_load import LeastLoaded, TwoChoices
from controllers.policies.by_weight import All, Random, RoundRobin, WeightedRandom
from serval_node.control.rules import SELECTORS

LOG = logging.getLogger("controllers.policies")

POLICIES: dict[str, type[Policy]] = {
    cls.name: cls for cls in (WeightedRandom, Random, RoundRobin, LeastLoaded, TwoChoices, Maglev, Ring, All)
}

_OLD_NAMES = {"hash": "maglev"}

_MODULE = "serval_policy_{}"


def register(cls: type[Policy]) -> type[Policy]:
    """Let a policy of an app (--app) be chosen by its name; to be used as a decorator. Raises PolicyError when there
    is one of that name.
    """
    name = name_of(cls)
    if POLICIES.setdefault(name, cls) is not cls:
        raise PolicyError(f"there is a policy {name!r} already: give yours another name")
    return cls


def name_of(policy: type[Policy]) -> str:
    return policy.name or policy.__name__


def find(text: str) -> tuple[str, Policy]:
    """A policy and the text to find it again by: a name of `POLICIES`, FILE.py, or FILE.py:CLASS where the file has
    several. A file is read each time. Raises PolicyError.
    """
    path, _, name = text.partition(":")
    if path.endswith(".py"):
        cls = _class_of(_load(Path(path)), path, name)
    else:
        text = _OLD_NAMES.get(text, text)
        if text not in POLICIES:
            raise PolicyError(f"no policy {text!r}; there are {', '.join(POLICIES)}, and your own as FILE.py")
        cls = POLICIES[text]
    if cls.selector not in SELECTORS:
        raise PolicyError(f"{name_of(cls)}: no selector {cls.selector!r}; there are {', '.join(SELECTORS)}")
    try:
        return text, cls()
    except Exception as error:  # a class that somebody else wrote may raise anything
        LOG.exception("making a %s", name_of(cls))
        raise PolicyError(f"{text}: {type(error).__name__}: {error}") from None


def _load(path: Path) -> ModuleType:
    if not path.is_file():
        raise PolicyError(f"there is no file {path}")
    name = _MODULE.format(path.stem)
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None:
        raise PolicyError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their module up there.
    sys.modules[name] = module
    try:
        # Not by the loader: it would take what it compiled a moment ago for a file that was changed in the same second.
        exec(compile(path.read_bytes(), str(path), "exec"), vars(module))
    except (Exception, SystemExit) as error:  # what a file does when it is read is up to its author
        LOG.exception("reading %s", path)
        raise PolicyError(f"{path} cannot be used: {type(error).__name__}: {error}") from None
    return module


def _class_of(module: ModuleType, path: str, name: str) -> type[Policy]:
    found = {
        key: value
        for key, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, Policy) and value.__module__ == module.__name__
    }
    names = ", ".join(found) or "none"
    if name:
        if name not in found:
            raise PolicyError(f"{path} has no policy {name!r}; policies in it: {names}")
        return found[name]
    if len(found) != 1:
        raise PolicyError(f"{path} must have one class derived from Policy, or say {path}:CLASS; it has: {names}")
    return next(iter(found.values()))
