"""What several topologies have: a provider, its usual services, link options, parameters that are checked."""

from __future__ import annotations

from collections.abc import Mapping

from topologies.declarations import Service, TopologyError

PROVIDER, PROVIDER_BLOCK = "example", 0x5E7A1E
WEB_COMMAND = ("/usr/bin/python3", "-m", "http.server", "80", "--directory", "/run/serval/www")
WEB_PAGE = "This is {host}, one of the instances of {service}.\n"
BULK_COMMAND = ("iperf3", "--server")
NOTHING = ("0", "0.0", "0ms", "")


def web(*hosts: str, label: str = "web") -> Service:
    """A page that says which host it comes from."""
    return Service(f"{label}.{PROVIDER}", hosts, WEB_COMMAND, WEB_PAGE)


def bulk(host: str) -> Service:
    """iperf3, for data in bulk."""
    return Service(f"bulk.{PROVIDER}", (host,), BULK_COMMAND)


def impairments(delay: str, loss: float = 0, impairable: int = 0) -> dict[str, object]:
    """A link's options for its delay (one way, "5ms"), its loss (percent), and that such may come later (1 or 0);
    none for nothing.
    """
    wanted: Mapping[str, object] = {"delay": delay, "loss": float(loss)}
    found = {name: value for name, value in wanted.items() if str(value) not in NOTHING}
    return {**found, "impairable": True} if within("impairable", impairable, 0, 1) else found


def within(name: str, value: int, low: int, high: int) -> int:
    """A parameter that is a whole number with bounds; raises TopologyError."""
    if not isinstance(value, int) or not low <= value <= high:
        raise TopologyError(f"{name} must be a whole number from {low} to {high}, not {value!r}")
    return value
