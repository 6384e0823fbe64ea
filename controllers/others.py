"""Apps of others that run beside ours, as `ryu-manager` would run them: found by name and checked before they start."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import logging
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from controllers import framework
from controllers.framework import StartError, ofp_event

LOG = logging.getLogger("controllers.others")

API = "controllers.api"
GUIDE = "see docs/ryu-apps.md"


def load(names: Sequence[str]) -> dict[str, type]:
    """Module name -> app class, in the order given, for names of modules or files (`*.py`).

    Raises StartError: no such module, no app in it, an app that cannot run beside Serval nodes, two of the same name.
    """
    found: dict[str, type] = {}
    for name in names:
        module = _import(name)
        found[module.__name__] = _app_of(module, name)
    _check_names(found)
    return found


def check_owners(found: dict[str, type], *, fabric: bool) -> None:
    """Raises StartError when the switches would have two owners: the fabric, and an app that forwards too.

    Whether two apps of others get on with each other is for their user to know: about those only the log speaks.
    """
    forwarding = [name for name, cls in found.items() if handles_packets(cls)]
    if fabric and forwarding:
        raise StartError(
            f"the switch fabric and {forwarding[0]} would both rule the switches: leave one out (--apps service)"
        )
    owners = [name for name in forwarding if not name.endswith(".topology.switches")]
    if len(owners) > 1:
        LOG.warning("%s all take the switches' packets: do they get on with each other?", ", ".join(owners))


def leave_switches(found: dict[str, type]) -> bool:
    """Whether all these apps handle events of controllers.api and no other ones, so that none can rule switches."""
    events = [handled_events(cls) for cls in found.values()]
    return all(handled and {event.__module__ for event in handled} == {API} for handled in events)


def handles_packets(cls: type) -> bool:
    """Whether an app is given the packets that switches send up."""
    return ofp_event.EventOFPPacketIn in handled_events(cls)


def handled_events(cls: type) -> set[type]:
    """The classes of events for which an app has handlers."""
    methods = (method for _, method in inspect.getmembers(cls, inspect.isfunction))
    return {event for method in methods for event in getattr(method, "callers", {})}


def _import(name: str) -> ModuleType:
    path = Path(name)
    try:
        return _import_file(path) if path.suffix == ".py" else importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if name == missing or name.startswith(f"{missing}."):
            raise StartError(f"there is no app {name!r}: no module {missing!r} was found{_hint(name)}") from None
        raise StartError(f"{name} needs the module {missing!r}, which was not found{_hint(missing)}") from None
    except StartError:
        raise
    except (Exception, SystemExit) as error:  # what a module does when it is imported is up to its author
        LOG.exception("importing %s", name)
        raise StartError(f"{name} cannot be imported: {type(error).__name__}: {error}") from None


def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise StartError(f"there is no app {str(path)!r}: no such file")
    if path.stem in sys.modules or not path.stem.isidentifier():
        raise StartError(f"{path}: {path.stem!r} cannot be a module's name here; give the file another name")
    # As for a script: what lies beside it can be imported.
    sys.path.insert(0, str(path.resolve().parent))
    return importlib.import_module(path.stem)


def _hint(module: str) -> str:
    top = module.partition(".")[0]
    if top == "ryu" and framework.CHOICE == "osken":
        return f"; Ryu's own modules need CONTROLLER=ryu, or import lines that say os_ken ({GUIDE})"
    if top == "os_ken" and framework.CHOICE == "ryu":
        return f"; under CONTROLLER=ryu import lines say ryu ({GUIDE})"
    if module.startswith("os_ken.app."):
        return f"; os-ken brings no sample apps ({GUIDE})"
    return ""


def _app_of(module: ModuleType, name: str) -> type:
    """The class that the framework will run: of several, the first by name."""
    classes = [
        cls
        for _, cls in inspect.getmembers(module, inspect.isclass)
        if issubclass(cls, framework.App) and cls.__module__ == module.__name__
    ]
    if not classes:
        base = f"{framework.App.__module__}.{framework.App.__name__}"
        raise StartError(f"{name} is no app: it has no class of its own made from {base}")
    if len(classes) > 1:
        LOG.warning("%s has %d apps; only %s runs", name, len(classes), classes[0].__name__)
    versions = getattr(classes[0], "OFP_VERSIONS", None)
    if versions is not None and framework.OPENFLOW_13 not in versions:
        raise StartError(f"{name} does not speak OpenFlow 1.3, which Serval nodes speak (its OFP_VERSIONS lacks it)")
    return classes[0]


def _check_names(found: dict[str, type]) -> None:
    """The framework tells apps by the names of their classes, so that two of one name cannot be told apart."""
    seen: dict[str, str] = {}
    for module, cls in found.items():
        other = seen.setdefault(cls.__name__, module)
        if other != module:
            raise StartError(f"{other} and {module} are both called {cls.__name__}: the framework runs one of a name")


def shield(source: Any, aware: Iterable[str]) -> None:
    """Let only these apps (by name) have the events about Serval nodes that `source`, the OpenFlow handler, gives.

    A node is a datapath without tables and ports. An app made for switches gains nothing from it, and might count it
    as a switch. Events from before a datapath's features are known go to all.
    """
    observers_of, allowed = source.get_observers, frozenset(aware)

    def get_observers(event: Any, state: Any) -> list[str]:
        names: list[str] = observers_of(event, state)
        return [name for name in names if name in allowed] if framework.is_about_node(event) else names

    source.get_observers = get_observers
