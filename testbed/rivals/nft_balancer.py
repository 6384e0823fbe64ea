"""A load balancer of the kernel's own, in the middle of the path: nftables on a plain host (slide 8, S4).

The host has one address, that of the service. The first packet of a connection meets a rule that chooses a server:

    random       nft's `numgen random`
    round-robin  nft's `numgen inc`
    flow-hash    nft's `jhash` over client address and port
    client-hash  nft's `jhash` over the client's address: a client stays with a server, while their number stays

From then on conntrack rewrites every packet of it, both ways: it stands for both ends, so that answers come back here
whatever the routes. Rules change in one transaction. Connections that are there keep their server, even one that is
gone: that is conntrack's memory, and the reason for losing them all when this host dies.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence

from testbed import hosts
from testbed.errors import TestbedError
from testbed.hosts import EmulatedNode

TABLE = "serval_rival"
CHOICES: Mapping[str, str] = {
    "random": "numgen random mod {count}",
    "round-robin": "numgen inc mod {count}",
    "flow-hash": "jhash ip saddr . tcp sport mod {count} seed {seed:#x}",
    "client-hash": "jhash ip saddr mod {count} seed {seed:#x}",
}
SEED = 0x5E7A1E
"""Of the hashes: without one nft draws another for each ruleset, and every change would move every client."""

_CHECK_SECONDS = 10.0
_SYSTEM_PATH = ("/usr/sbin", "/sbin")


def ruleset(how: str, address: str, port: int, servers: Sequence[str]) -> str:
    """What `nft -f` takes: the balancer's table put in the place of the one before, if there was one. Pure.

    how     one of CHOICES
    address, port   where clients connect to; servers listen on the same port
    servers  addresses, at least one. Raises TestbedError.
    """
    if how not in CHOICES:
        raise TestbedError(f"an nft balancer knows no {how!r}", f"it knows: {', '.join(CHOICES)}")
    if not servers or len(set(servers)) < len(servers):
        raise TestbedError(f"an nft balancer needs servers, each once, not {', '.join(servers) or 'none'}")
    choice = CHOICES[how].format(count=len(servers), seed=SEED)
    places = ", ".join(f"{number} : {server}" for number, server in enumerate(servers))
    return "\n".join(
        [
            # Adding what is there changes nothing, so that deleting it cannot fail.
            f"table ip {TABLE}",
            f"delete table ip {TABLE}",
            f"table ip {TABLE} {{",
            "    chain arriving {",
            "        type nat hook prerouting priority -100; policy accept;",
            f"        ip daddr {address} tcp dport {port} counter dnat to {choice} map {{ {places} }}",
            "    }",
            "    chain leaving {",
            "        type nat hook postrouting priority 100; policy accept;",
            f"        ct original ip daddr {address} tcp dport {port} counter masquerade",
            "    }",
            "}",
            "",
        ]
    )


@functools.cache
def missing() -> str | None:
    """Why this machine cannot run one; None when it can. Tried in a network namespace that is gone afterwards."""
    program = _program()
    if program is None:
        return "nft is not installed (apt-get install nftables)"
    words = ["unshare", "--net"] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user", "--net"]
    text = "".join(ruleset(how, "192.0.2.1", 80, ["192.0.2.2", "192.0.2.3"]) for how in CHOICES)
    try:
        done = subprocess.run(
            [*words, program, "-f", "-"],
            input=text,
            capture_output=True,
            text=True,
            timeout=_CHECK_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"nft cannot be tried: {error}"
    if done.returncode == 0:
        return None
    said = (done.stderr.strip().splitlines() or ["no reason given"])[0]
    return f"kernel without nf_tables, or without its NAT: {said}"


class NftBalancer:
    """One on a host of a running network. Nothing is balanced before `use`; the rules end with the host."""

    def __init__(self, host: EmulatedNode, port: int, how: str) -> None:
        reason = missing()
        if reason is not None:
            raise TestbedError(f"an nft balancer cannot run here: {reason}")
        self.host, self._port, self._how = host, port, how
        self.address = host.addresses()[0]
        hosts.script(host, ["sysctl -q -w net.ipv4.ip_forward=1"])

    def use(self, servers: Sequence[str]) -> None:
        """New connections go to these addresses from now on; raises TestbedError."""
        text = ruleset(self._how, self.address, self._port, servers)
        hosts.script(self.host, [f"{_program()} -f - <<'END'\n{text}END"])


def _program() -> str | None:
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), *_SYSTEM_PATH])
    return shutil.which("nft", path=path)
