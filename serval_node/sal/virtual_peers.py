"""What an unmodified server sees as its client: an address of 198.19.0.0/16, one per client address at the SYN.

It is chosen from the client's address alone and stays when the client moves, because it belongs to the flow.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Container

from serval_node.sal.flow_table import Endpoint
from serval_node.wire.ipv4 import Address

_BLOCK = bytes((198, 19))
_HOSTS = 0xFFFE
_FIRST_PORT = 1024
_PORTS = 65536 - _FIRST_PORT


class VirtualPeers:
    """Virtual addresses and ports for the peers of accepted connections."""

    def __init__(self) -> None:
        self._by_client: dict[Address, Address] = {}
        self._clients: dict[Address, Address] = {}
        self._next_port: dict[Address, int] = {}

    def address(self, client: Address) -> Address:
        """The client's virtual address, the same each time. Raises ``OverflowError`` after 65,534 clients."""
        found = self._by_client.get(client)
        if found is not None:
            return found
        if len(self._by_client) == _HOSTS:
            raise OverflowError("no virtual address is left for another client")
        number = int.from_bytes(hashlib.blake2b(client, digest_size=4).digest(), "big") % _HOSTS
        while (chosen := _BLOCK + (number + 1).to_bytes(2, "big")) in self._clients:
            number = (number + 1) % _HOSTS
        self._by_client[client] = chosen
        self._clients[chosen] = client
        return chosen

    def client(self, address: Address) -> Address | None:
        """The client behind a virtual address."""
        return self._clients.get(address)

    def retain(self, used: Container[Address]) -> None:
        """Forget the clients whose virtual address is not ``used``: forged SYNs must not use up the block for ever."""
        for address in [address for address in self._clients if address not in used]:
            del self._by_client[self._clients.pop(address)]
            self._next_port.pop(address, None)

    def endpoint(self, client: Address, in_use: Callable[[Endpoint], bool]) -> Endpoint | None:
        """The client's address with a port that is not ``in_use``; None when all are."""
        address = self.address(client)
        port = self._next_port.get(address, 0)
        for _ in range(_PORTS):
            endpoint = address, _FIRST_PORT + port
            port = (port + 1) % _PORTS
            if not in_use(endpoint):
                self._next_port[address] = port
                return endpoint
        return None
