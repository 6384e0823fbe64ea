"""Names in the kernel of one host: addresses, ports, and back to serviceIDs."""

from __future__ import annotations

import pytest

from serval_node.daemon.names import HostNames
from serval_node.daemon.virtual_addresses import VirtualAddresses
from serval_node.wire.naming import SERVICE_PORT_ANY, Naming, ServiceNameError


@pytest.fixture
def names() -> HostNames:
    return HostNames(Naming({"example": 0x9C1185}), VirtualAddresses())


@pytest.mark.parametrize(
    ("text", "port", "field"),
    [("web.example", SERVICE_PORT_ANY, 0), ("Web.Example:8080", 8080, 8080), ("web.example:0", SERVICE_PORT_ANY, 0)],
)
def test_a_name_has_one_address_for_all_its_ports(names: HostNames, text: str, port: int, field: int) -> None:
    address, kernel_port, service_id = names.endpoint(text)
    assert address == names.name_address("web.example")
    assert kernel_port == port
    assert service_id == names.naming.service_id("web.example", field)
    assert names.service_for(address, kernel_port) == service_id


@pytest.mark.parametrize("text", ["0x1234567890", "16390", "0xff/256", "web.example:1"])
def test_what_no_kernel_port_can_say_has_an_address_of_its_own(names: HostNames, text: str) -> None:
    address, port, service_id = names.endpoint(text)
    assert port == SERVICE_PORT_ANY
    assert names.service_for(address, port) == service_id
    assert names.service_for(address, 80) == service_id


def test_a_known_name_in_hexadecimal_is_that_name(names: HostNames) -> None:
    by_name = names.endpoint("web.example:80")
    assert names.endpoint("0x" + by_name[2].hex()) == by_name


def test_unknown_addresses_stand_for_nothing(names: HostNames) -> None:
    assert names.service_for(bytes((198, 18, 7, 7)), 80) is None


@pytest.mark.parametrize("text", ["single", "0x12/24", "default", "*.example", "x" * 64 + ".example", ""])
def test_what_is_not_one_service(names: HostNames, text: str) -> None:
    with pytest.raises(ServiceNameError):
        names.endpoint(text)
    assert names.addresses.items() == []


def test_names_of_an_earlier_daemon_are_known_by_name(names: HostNames) -> None:
    names.name_address("old.example")
    later = HostNames(Naming({"example": 0x9C1185}), names.addresses)
    assert later.describe(names.naming.bind_prefix("old.example")) == "old.example"
