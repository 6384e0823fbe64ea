"""What becomes of first packets for a service that nobody serves yet: a function decides (S26). It never sees a packet.

`servicectl unknown PREFIX DECIDER` lets such packets wait under DELAY, and DECIDER is asked about each service. It is
one of these functions, or one of yours by MODULE:FUNCTION (docs/just-in-time.md):

    start     wake an instance that a host offers (`serval standby`), and let the packets go on when it listens
    resolve   send them to the instances that are registered, wherever these are
    refuse    nobody serves that: connect() fails at once
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable
from dataclasses import dataclass

from controllers.directory import Instance
from serval_node.wire.serviceid import Prefix

LOG = logging.getLogger("controllers.unknown")


class UnknownError(Exception):
    """A decider that cannot be used; one line for the user."""


@dataclass(frozen=True, slots=True)
class Unknown:
    """A service for which first packets wait at a node.

    service    its serviceID (256 bits); name: the same as text
    node       where they wait
    standbys   nodes that offer to start an instance of it, by name
    instances  those that are registered: none, unless the node where they wait is told of none
    """

    service: Prefix
    name: str
    node: str
    standbys: tuple[str, ...] = ()
    instances: tuple[Instance, ...] = ()


@dataclass(frozen=True, slots=True)
class Start:
    """Start the program that `node` offers; the packets go on when it listens."""

    node: str


@dataclass(frozen=True, slots=True)
class Forward:
    """To the registered instances, by the service's policy."""


@dataclass(frozen=True, slots=True)
class Refuse:
    """connect() fails: connection refused."""


@dataclass(frozen=True, slots=True)
class Drop:
    """Throw the packets away; the clients ask again until they give up."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Somebody else decides: an app, or a person with servicectl."""


Decision = Start | Forward | Refuse | Drop | Wait
Decider = Callable[[Unknown], Decision]


def start(case: Unknown) -> Decision:
    """Just in time: the first host that offers an instance."""
    if case.instances:
        return Forward()
    return Start(case.standbys[0]) if case.standbys else Refuse()


def resolve(case: Unknown) -> Decision:
    """What is there, and nothing new."""
    return Forward() if case.instances else Refuse()


def refuse(case: Unknown) -> Decision:
    """As without DELAY, but each name is in the controller's log."""
    return Refuse()


DECIDERS: dict[str, Decider] = {"start": start, "resolve": resolve, "refuse": refuse}


def find(text: str) -> Decider:
    """A decider by its name here, or by MODULE:FUNCTION. Raises UnknownError."""
    if text in DECIDERS:
        return DECIDERS[text]
    module, colon, name = text.partition(":")
    if not colon or not module or not name:
        raise UnknownError(f"no decider {text!r}; there are {', '.join(DECIDERS)}, and MODULE:FUNCTION")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, SyntaxError, ValueError) as error:
        raise UnknownError(f"cannot use {text}: {error}") from None
    if not callable(found):
        raise UnknownError(f"{text} is no function")
    chosen: Decider = found
    return chosen


def decide(text: str, case: Unknown) -> Decision:
    """What the decider says; one that fails refuses."""
    try:
        decision = find(text)(case)
    except Exception:  # a function that somebody else wrote: whatever it raises is its own, and the connects wait
        LOG.exception("the decider %s has failed for %s", text, case.name)
        return Refuse()
    if not isinstance(decision, Decision):
        LOG.error("the decider %s gives %r for %s, which is no decision", text, decision, case.name)
        return Refuse()
    return decision


class UnknownBook:
    """Which decider is asked about the services of which prefix, and at which nodes services were resolved since."""

    def __init__(self) -> None:
        self.deciders: dict[Prefix, str] = {}
        # Datapath id -> prefixes of registered services that the node is told of although it is not their router.
        self.resolved: dict[int, set[Prefix]] = {}

    def set(self, prefix: Prefix, text: str) -> None:
        """Raises UnknownError."""
        find(text)
        self.deciders[prefix] = text

    def remove(self, prefix: Prefix) -> bool:
        """Whether there was one."""
        return self.deciders.pop(prefix, None) is not None

    def found(self, prefix: Prefix, text: str) -> None:
        """A rule of this controller's predecessor was found at a node."""
        try:
            find(text)
        except UnknownError as error:
            LOG.warning("%s", error)
        else:
            self.deciders.setdefault(prefix, text)

    def decider(self, service: Prefix) -> str | None:
        """The one for the longest prefix that covers the service."""
        covering = [prefix for prefix in self.deciders if prefix.covers(service)]
        return self.deciders[max(covering, key=lambda prefix: prefix.bits)] if covering else None
