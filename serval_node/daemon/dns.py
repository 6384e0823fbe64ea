"""The host's own name server: how unmodified programs get at services.

It listens on 127.0.0.1:53 of one host and knows no other server. A name of two or more labels is a service and
gets its virtual address, whether or not anyone serves it: the answer never asks a directory, so that binding
stays late (S2, S19).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from dnslib import QTYPE, RCODE, RR, A, DNSHeader, DNSRecord
from dnslib.dns import DNSError
from dnslib.label import DNSLabelError

from serval_node.daemon.virtual_addresses import AddressesExhausted
from serval_node.wire.naming import ServiceNameError

# The address of a name never changes within a run; a cache that lives longer than a run would be wrong in the
# next one.
TTL_SECONDS = 60
MAX_QUERY_BYTES = 4096


class NameServer:
    """Turns one query into one answer; sockets are the daemon's.

    `service_address(name)` returns the 4-byte virtual address of a service's name, or raises ServiceNameError
    or AddressesExhausted. `hosts` are the topology's hosts with their real addresses (dotted text).
    """

    def __init__(self, service_address: Callable[[str], bytes], hosts: Mapping[str, str]) -> None:
        self._service_address = service_address
        self._hosts = {name.lower(): address for name, address in hosts.items()}

    def answer(self, query: bytes) -> bytes | None:
        """The answer's bytes; None when `query` is too broken to be answered at all."""
        try:
            return self._answer(DNSRecord.parse(query))
        except (DNSError, DNSLabelError, ValueError, IndexError, UnicodeError):
            # A name that can be read, such as one with a label of 64 bytes, but not be written into an answer, too.
            return _format_error(query)

    def _answer(self, request: DNSRecord) -> bytes | None:
        if request.header.qr or request.header.opcode or len(request.questions) != 1:
            return None if request.header.qr else _status(request, RCODE.NOTIMP)
        question = request.q
        name = str(question.qname).rstrip(".").lower()
        if question.qtype == QTYPE.PTR:
            return _status(request, RCODE.NOERROR)
        if "." not in name:
            return _status(request, RCODE.NXDOMAIN)
        try:
            address = self._hosts.get(name) or ".".join(map(str, self._service_address(name)))
        except ServiceNameError:
            return _status(request, RCODE.NXDOMAIN)
        except AddressesExhausted:
            return _status(request, RCODE.SERVFAIL)
        reply = request.reply(ra=1, aa=1)
        if question.qtype in (QTYPE.A, QTYPE.ANY):
            reply.add_answer(RR(question.qname, QTYPE.A, rdata=A(address), ttl=TTL_SECONDS))
        return bytes(reply.pack())


def _status(request: DNSRecord, code: int) -> bytes:
    reply = request.reply(ra=1, aa=1)
    reply.header.rcode = code
    return bytes(reply.pack())


def _format_error(query: bytes) -> bytes | None:
    if len(query) < 12 or query[2] & 0x80:
        return None
    header = DNSHeader(id=int.from_bytes(query[:2], "big"), qr=1, rcode=RCODE.FORMERR)
    return bytes(DNSRecord(header).pack())


def resolv_conf() -> str:
    """The host's /etc/resolv.conf. `search .` keeps a domain of the machine's own name from being appended to
    single labels.
    """
    return "nameserver 127.0.0.1\nsearch .\noptions ndots:1 timeout:1 attempts:2\n"


def hosts_file(own_name: str, hosts: Mapping[str, str]) -> str:
    """The host's /etc/hosts: the topology's hosts with their real addresses."""
    lines = ["127.0.0.1 localhost", "::1 localhost ip6-localhost ip6-loopback"]
    lines += [f"{address} {name}" for name, address in hosts.items()]
    if own_name not in hosts:
        lines.append(f"127.0.1.1 {own_name}")
    return "\n".join(lines) + "\n"
