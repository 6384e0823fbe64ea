"""The links of a topology before anything is started: do their options make sense, and can they be changed like that?

Pure: a topology is data.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mininet.topo import Topo

from testbed.errors import TestbedError
from testbed.link.shape import shapes


def check_links(topo: Topo) -> None:
    """Raises TestbedError, naming the link, for a rate, delay, jitter, loss or queue that makes no sense."""
    for first, second, options in topo.links(withInfo=True):
        try:
            shapes(options)
        except TestbedError as error:
            raise TestbedError(f"link {first}-{second}: {error.message}", error.hint) from None


def check_change(topo: Topo, first: str, second: str, *, towards: str | None = None, **changes: Any) -> None:
    """What `ServalNetwork.link_between(first, second).change(...)` would say, as far as a topology shows it.

    Raises TestbedError for a link that is not there, and what `check_link` raises.
    """
    options = link_options(topo, first, second)
    if towards not in (None, first, second):
        raise TestbedError(f"link {first}-{second} does not end at {towards!r}")
    check_link(f"{first}-{second}", options, **changes)


def check_link(name: str, options: Mapping[str, Any], **changes: Any) -> None:
    """Whether a link with these options can be changed so. Raises TestbedError for a value that makes no sense, and for
    an impairment of a link without a relay.

    Whether the kernel has netem is not looked at: a schedule that is accepted runs on every kernel.
    """
    try:
        changed = [shape.changed(**changes) for shape in shapes(options)]
    except TypeError as error:
        raise TestbedError(f"link {name}: {_unknown(error)}") from None
    except TestbedError as error:
        raise TestbedError(f"link {name}: {error.message}", error.hint) from None
    if any(shape.impaired for shape in changed) and not _has_relay(options):
        raise without_relay(name)


def link_options(topo: Topo, first: str, second: str) -> Mapping[str, Any]:
    """The options of the link between two nodes, of several the first; raises TestbedError that lists the links."""
    links = topo.links(withInfo=True)
    for one, other, options in links:
        if {one, other} == {first, second}:
            return options
    known = ", ".join(sorted(f"{one}-{other}" for one, other, _ in links))
    raise TestbedError(f"no link between {first} and {second}; there are: {known}")


def without_relay(name: str) -> TestbedError:
    """Why a link cannot be impaired while it runs, and what to do."""
    return TestbedError(
        f"link {name} has no relay: it can change its rate and its queue, but not delay, lose or swallow",
        "give it the option impairable=True in the topology (or a delay from the start)",
    )


def _has_relay(options: Mapping[str, Any]) -> bool:
    return bool(options.get("impairable")) or any(shape.impaired for shape in shapes(options))


def _unknown(error: TypeError) -> str:
    known = "rate, delay, jitter, loss, queue, reorder, hole"
    return f"{str(error).rpartition('() ')[2]}; what can be changed: {known}"
