"""What this host's kernel calls a service, and which service a kernel address and port stand for."""

from __future__ import annotations

from serval_node.daemon.virtual_addresses import VirtualAddresses
from serval_node.wire.naming import SERVICE_PORT_ANY, Naming, normal_name
from serval_node.wire.serviceid import Prefix, ServiceID

_RAW = "0x"
# Services by kernel address and port; the table is emptied when a program asked for too many.
_CACHED = 4096


class HostNames:
    """Joins the naming rule with the table of virtual addresses.

    A name has one address for all its ports; the kernel's destination port is the serviceID's port field,
    except that SERVICE_PORT_ANY stands for field 0. A serviceID that no known name has gets an address for
    itself.
    """

    def __init__(self, naming: Naming, addresses: VirtualAddresses) -> None:
        self.naming = naming
        self.addresses = addresses
        self._services: dict[tuple[bytes, int], ServiceID] = {}
        for key, _ in addresses.items():
            if not key.startswith(_RAW):
                naming.service_id(key)  # names of an earlier daemon are known by name again

    def name_address(self, name: str) -> bytes:
        """The virtual address of a service's name; raises ServiceNameError, AddressesExhausted."""
        name = normal_name(name)
        self.naming.service_id(name)  # a name that has no serviceID gets no address either
        return self.addresses.address(name)

    def endpoint(self, text: str) -> tuple[bytes, int, ServiceID]:
        """Where a program connects to reach a service given as text, and the serviceID it then asks for.

        Raises ServiceNameError, AddressesExhausted.
        """
        service_id = self.naming.parse(text, exact=True).service_id
        named = self.naming.name_of(service_id)
        if named is None:
            return self.addresses.address(_RAW + service_id.hex()), SERVICE_PORT_ANY, service_id
        name, port = named
        if port == SERVICE_PORT_ANY:
            # The kernel's port 1 means port field 0, so the rare service on port 1 is reached by its whole
            # serviceID.
            return self.addresses.address(_RAW + service_id.hex()), SERVICE_PORT_ANY, service_id
        return self.addresses.address(name), port or SERVICE_PORT_ANY, service_id

    def service_for(self, address: bytes, port: int) -> ServiceID | None:
        """The serviceID behind a virtual address and a kernel port; None for an address that stands for
        nothing.
        """
        known = self._services.get((address, port))  # an address never comes to stand for another name
        if known is not None:
            return known
        key = self.addresses.key(address)
        if key is None:
            return None
        if key.startswith(_RAW):
            found = ServiceID.from_hex(key)
        else:
            found = self.naming.service_id(key, 0 if port == SERVICE_PORT_ANY else port)
        if len(self._services) >= _CACHED:
            self._services.clear()
        self._services[address, port] = found
        return found

    def describe(self, what: Prefix | ServiceID) -> str:
        """By name where it is known, else hexadecimal or decimal."""
        return self.naming.describe(what)
