"""The name server's answers."""

from __future__ import annotations

import pytest
from dnslib import QTYPE, RCODE, DNSRecord

from serval_node.daemon.dns import NameServer, hosts_file, resolv_conf
from serval_node.daemon.virtual_addresses import VirtualAddresses
from serval_node.wire.naming import Naming


@pytest.fixture
def asked() -> list[str]:
    return []


@pytest.fixture
def server(asked: list[str]) -> NameServer:
    naming, table = Naming({"example": 0x123456}), VirtualAddresses()

    def address(name: str) -> bytes:
        naming.service_id(name)
        asked.append(name)
        return table.address(name)

    return NameServer(address, {"ann": "10.0.1.1", "Db.Rack1": "10.0.2.2"})


def ask(server: NameServer, name: str, kind: str = "A") -> DNSRecord:
    query = DNSRecord.question(name, kind)
    answer = server.answer(bytes(query.pack()))
    assert answer is not None
    record = DNSRecord.parse(answer)
    assert record.header.id == query.header.id
    assert record.header.qr == 1
    return record


def test_a_name_of_two_labels_is_a_service(server: NameServer) -> None:
    record = ask(server, "Web.Example")
    assert str(record.q.qname) == "Web.Example."
    assert [str(answer.rdata) for answer in record.rr] == [
        ".".join(map(str, VirtualAddresses().address("web.example")))
    ]


@pytest.mark.parametrize("kind", ["AAAA", "TXT", "MX", "SRV", "HTTPS"])
def test_other_types_get_an_empty_answer(server: NameServer, kind: str) -> None:
    record = ask(server, "web.example", kind)
    assert (record.header.rcode, record.rr) == (RCODE.NOERROR, [])


def test_ptr_gets_an_empty_answer(server: NameServer, asked: list[str]) -> None:
    record = ask(server, "1.1.18.198.in-addr.arpa", "PTR")
    assert (record.header.rcode, record.rr) == (RCODE.NOERROR, [])
    assert asked == []


@pytest.mark.parametrize("kind", ["A", "AAAA"])
@pytest.mark.parametrize("name", ["localhost", "zoe", "ann", "."])
def test_single_labels_do_not_exist(server: NameServer, name: str, kind: str) -> None:
    assert ask(server, name, kind).header.rcode == RCODE.NXDOMAIN


def test_a_host_with_a_dotted_name_has_its_real_address(server: NameServer, asked: list[str]) -> None:
    assert str(ask(server, "db.rack1").rr[0].rdata) == "10.0.2.2"
    assert asked == []


def test_what_no_service_may_be_called_does_not_exist(server: NameServer) -> None:
    assert ask(server, "we b.example").header.rcode == RCODE.NXDOMAIN


def test_garbage_is_no_exception(server: NameServer) -> None:
    assert server.answer(b"") is None
    assert server.answer(b"\0" * 11) is None
    broken = server.answer(b"\x12\x34\x01\x00\x00\x01" + b"\0" * 6 + b"\xc0\x0c")
    assert broken is not None
    assert DNSRecord.parse(broken).header.rcode == RCODE.FORMERR
    whole = bytes(DNSRecord.question("web.example").pack())
    for length in range(len(whole)):
        server.answer(whole[:length])
    response = ask(server, "web.example")
    assert server.answer(bytes(response.pack())) is None


@pytest.mark.parametrize("count", [1, 2])
def test_a_label_that_cannot_be_written_is_a_format_error(server: NameServer, count: int) -> None:
    """It is read (the length's two reserved bits are taken as part of it), and would stand in the answer again."""
    question = b"\x50" + b"s" * 0x50 + b"\x07example\0\0\x01\0\x01"
    answer = server.answer(b"\x12\x34\x01\0\0" + bytes([count]) + b"\0" * 6 + question * count)
    assert answer is not None
    assert DNSRecord.parse(answer).header.rcode == RCODE.FORMERR


def test_files() -> None:
    assert "nameserver 127.0.0.1\n" in resolv_conf()
    text = hosts_file("ann", {"ann": "10.0.1.1", "ben": "10.0.1.2"})
    assert "10.0.1.1 ann\n" in text
    assert "10.0.1.2 ben\n" in text
    assert "127.0.0.1 localhost\n" in text


def test_qtype_any_is_answered(server: NameServer) -> None:
    assert QTYPE[ask(server, "web.example", "ANY").rr[0].rtype] == "A"
