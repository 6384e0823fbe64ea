"""Which test shows which statement of the system: reads the `statement` markers of all tests and writes the table.

    python -m tests.statements            write docs/statements.md
    python -m tests.statements --check    only compare it; status 1 and one line when it is out of date

Pure reading of source text: no test module is imported.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

TESTS = Path(__file__).resolve().parent
PAGE = TESTS.parent / "docs" / "statements.md"

STATEMENTS: dict[str, str] = {
    "S4": "a balancer in the path handles every packet, the service router one for each connection",
    "S6": "an interface that goes kills a plain TCP stream; the Serval stream goes on, whole",
    "S7": "a stock IP router on the path only decrements TTL and mends the checksum",
    "S8": "streams and datagrams, connected or not, run over the same SAL tables",
    "S9": "a serviceID is a group: two hosts, or two processes of one host, serve it",
    "S10": "flowIDs alone find the socket, whatever the addresses; a wrong flowID is dropped",
    "S11": "flowIDs are local to a host, unique in it, and not reused in TIME_WAIT",
    "S12": "an address changes: of the flow only its location, not socket, flowIDs and service",
    "S13": "programs see only serviceIDs",
    "S15": "the longest prefix wins over all actions; deleting it exposes the next",
    "S16": "one rule X/24 at the edge serves every service of the block",
    "S18": "the serviceID travels only in the first packets; data has a 12-byte SAL header",
    "S19": "late binding: the rule that the SYN meets on arrival decides",
    "S20": "connect() alone resolves, bind() and listen() alone advertise",
    "S21": "service table and flow table can be dumped live; the IP table is another one",
    "S22": "the control API, here and remotely: each message type of the original has its counterpart",
    "S23": "FORWARD to one address",
    "S24": "FORWARD to a set: policies, priorities and weights; copies to all; rules that end by themselves",
    "S25": "DEMUX to a listening socket",
    "S26": "DELAY: queue, one notification, release by the controller's rule",
    "S27": "DELAY is bounded, by number and by time; overflow, time-out and drop are counted and seen by the program",
    "S28": "DROP is counted; silent at a router, EHOSTUNREACH at once on the own host",
    "S29": "no rule is an error at once: on the own host, and from a router by RST with the SYN's nonce",
    "S30": "counters of rules and targets are right to the packet",
    "S31": "the figure's topology from one file, with the figure's tables",
    "S32": "bind and listen: DEMUX rule and registration within a measured time",
    "S33": "close: rule gone, unregistered; established children go on",
    "S34": "kill -9 of a server is as its close",
    "S36": 'after "service X @ d" the controller installs X FORWARD d',
    "S37": "socket() already has a flowID",
    "S38": "connect(X) sends SYN {a, flow; dst c, flow -; X}",
    "S39": "c rewrites only the destination; the selector in the rule decides; policies only change rules",
    "S40": "e's DEMUX rule delivers to the listening socket",
    "S41": "the child has a flowID of its own; its SYN-ACK goes straight to the client",
    "S42": "no data passes c; the round trip loses the detour",
    "S43": "affinity: rules and instances change, SYNs and SYN-ACKs are repeated or doubled",
    "S44": "ad hoc: SYN by broadcast, the first answer wins, the loser frees its state; flooding with hop limit",
    "S45": "migration is RSYN, RSYN-ACK, ACK and data from the new address; the byte stream is unbroken",
    "S46": "lost control packets of a move are repeated with back-off; old, late and doubled ones do no harm",
    "S47": "either end may move, also both at once; who has lost the other finds it by the service's name",
    "S48": "CONTROL with a wrong nonce is dropped and counted",
    "S49": "flows move by hand, and by themselves when a link or an address goes; that can be switched off",
    "S51": "ordinary sockets work beside Serval's, in one process",
    "S52": "inside UDP it crosses a NAT and what drops unknown protocols; rebinding in the middle, keep-alives",
    "S58": "controller stopped: rules keep working; restarted: it relearns, and takes nothing away meanwhile",
    "S61": "resolution modes (all, DEMUX only, FORWARD only, anycast); a host finds a service router on its links and "
    "notices when it goes, and without one works by itself",
    "E1": "experiment: a client moves between WiFi and cellular, its stream lives",
    "E2": "experiment: of two flows that share an interface one moves to another",
    "E3": "experiment: a virtual machine moves to another subnet, with its stream",
    "E4": "experiment: goodput beside kernel TCP",
    "E8": "experiment: load balancing over replicas that join, leave and fail",
    "E9": "experiment: how long a move takes, by round-trip time and loss",
    "100 MB": "100 MB both ways, byte exact",
    "200 connections": "200 connections at once",
    "close orders": "either end closes first",
    "half-close": "one direction ends before the other",
    "reset": "either end resets",
}
"""Number (that of a slide's statement) or name -> statement. Each is shown by a test of the running system."""

_HEAD = """\
# Statements and the tests that show them

What the system must do, by the slides' statements (S) and experiments (E), and which tests fail when it does not.
Tests below `tests/emulation` and `tests/experiments` run the real system: nodes, routers, switches and controller on
emulated links. Tests below `tests/unit` show the same of the pure parts. A test says what it shows by
`@pytest.mark.statement("S9", ...)`; this page is written by `python -m tests.statements`.

| | statement | shown by |
|---|---|---|
"""


@dataclass(frozen=True, order=True)
class Shown:
    """A test and one statement that it is marked with; `path` relative to tests/."""

    statement: str
    path: str
    test: str

    @property
    def on_the_running_system(self) -> bool:
        return self.path.startswith(("emulation/", "experiments/"))


def shown(root: Path = TESTS) -> list[Shown]:
    """Every marker below `root`. Raises ValueError for a marker whose arguments are not plain strings."""
    return sorted(item for path in root.rglob("test_*.py") for item in in_source(path, path.relative_to(root)))


def in_source(path: Path, name: Path) -> Iterator[Shown]:
    """The markers in one test module."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        for decorator in node.decorator_list:
            if not isinstance(decorator, ast.Call) or ast.unparse(decorator.func) != "pytest.mark.statement":
                continue
            for argument in decorator.args:
                if not isinstance(argument, ast.Constant) or not isinstance(argument.value, str):
                    raise ValueError(f"{name}:{decorator.lineno}: a statement is named by a string")
                yield Shown(argument.value, name.as_posix(), node.name)


def page(found: Sequence[Shown]) -> str:
    """The text of docs/statements.md."""
    rows = []
    for statement, text in STATEMENTS.items():
        tests = sorted(
            (not item.on_the_running_system, item.path, item.test) for item in found if item.statement == statement
        )
        links = "<br>".join(f"[{test}](../tests/{path})" for _, path, test in tests)
        rows.append(f"| {statement} | {text} | {links} |\n")
    return _HEAD + "".join(rows)


def main(arguments: Sequence[str]) -> int:
    text = page(shown())
    if "--check" in arguments:
        if not PAGE.exists() or PAGE.read_text(encoding="utf-8") != text:
            print(f"{PAGE} is out of date: python -m tests.statements", file=sys.stderr)
            return 1
    else:
        PAGE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
