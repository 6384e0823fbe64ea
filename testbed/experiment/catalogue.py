"""The experiments that there are. They are found, not listed: each module of `experiments/` that has an EXPERIMENT.

They are loaded by name, as topologies are: nothing in `testbed` depends on one of them.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
from pathlib import Path

from testbed.errors import TestbedError
from testbed.experiment.specification import Experiment
from testbed.words import did_you_mean

PACKAGE = "experiments"
ATTRIBUTE = "EXPERIMENT"


def names(package: str = PACKAGE) -> list[str]:
    """Those of the modules that define an experiment; read from their source, none is loaded."""
    found = importlib.util.find_spec(package)
    places = [] if found is None else found.submodule_search_locations or []
    return sorted(path.stem for place in places for path in Path(place).glob("*.py") if _defines(path))


def load(name: str, package: str = PACKAGE) -> Experiment:
    """One of them. Raises TestbedError that lists them."""
    known = names(package)
    if name not in known:
        raise TestbedError(
            f"there is no experiment {name!r}{did_you_mean(name, known)}", f"there are: {', '.join(known) or 'none'}"
        )
    experiment = getattr(importlib.import_module(f"{package}.{name}"), ATTRIBUTE)
    if experiment.name != name:
        raise TestbedError(
            f"the experiment in {package}/{name}.py calls itself {experiment.name!r}", "name it as it is"
        )
    return experiment


def every(package: str = PACKAGE) -> list[Experiment]:
    """All of them, by name."""
    return [load(name, package) for name in names(package)]


def _defines(path: Path) -> bool:
    """Whether a module assigns EXPERIMENT at its top level."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        if any(isinstance(target, ast.Name) and target.id == ATTRIBUTE for target in targets):
            return True
    return False
