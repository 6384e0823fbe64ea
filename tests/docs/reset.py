"""Inside the datacenter's sandbox: hand-made rules and policies go, and only the topology's services are left.

python -m tests.docs.reset
"""

from __future__ import annotations

import sys
import time
from typing import Any

from serval_node.control.local import Client
from testbed.controller_process import CONTROLLER_SOCKET
from topologies.datacenter import Datacenter

LIMIT_SECONDS = 20.0


def main() -> int:
    """0, or 1 and what has stayed."""
    expected = {service.name: set(service.hosts) for service in Datacenter().services}
    with Client(str(CONTROLLER_SOCKET)) as client:
        for node in client.request("nodes")["nodes"]:
            for rule in client.request("rules", node=node["name"])["rules"]:
                if rule["origin"] == "hand":
                    client.request("remove", node=node["name"], service=rule["prefix"])
        for name in expected:
            client.request("policy", service=name, policy="weighted-random")
        deadline = time.monotonic() + LIMIT_SECONDS
        while (found := _services(client)) != expected:
            if time.monotonic() > deadline:
                print(f"services are still {found}")
                return 1
            time.sleep(0.05)
    return 0


def _services(client: Client) -> dict[str, set[str]]:
    services: list[dict[str, Any]] = client.request("services")["services"]
    return {item["name"]: {instance["node"] for instance in item["instances"]} for item in services}


if __name__ == "__main__":
    sys.exit(main())
