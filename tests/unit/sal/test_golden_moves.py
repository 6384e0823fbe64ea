"""The original's captured moves (protocol notes 3), one end played by our stack: its control packets are the captured
ones, byte for byte, and data goes where docs/wire-compatibility.md ("Moving") says.

`mig-client` is the case in which the original gets stuck: its RSYN-ACK was lost while the old path was alive.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from serval_node.sal.moves import Cause, MigrationState
from serval_node.sal.outputs import Send
from serval_node.sal.states import State
from serval_node.wire.ipv4 import PROTOCOL_SERVAL, Address, address, build_ipv4
from serval_node.wire.sal_header import Control, ControlFlag, decode, encode
from tests.unit.sal.test_golden import Captured, End, captured, control_of, unmarked

_RSYN, _ACK, _FIN = ControlFlag.RSYN, ControlFlag.ACK, ControlFlag.FIN
OLD, NEW, SERVER = address("10.77.0.1"), address("10.77.1.1"), address("10.77.2.2")


@dataclass(frozen=True)
class Sent:
    """What our stack sent, and between which addresses."""

    source: Address
    destination: Address
    data: bytes

    @property
    def control(self) -> Control | None:
        return decode(self.data).control


class Mover(End):
    """An end that has two addresses if it is the client, and remembers where it sent."""

    def __init__(self, packets: list[Captured], client: bool) -> None:
        self.ways: list[Sent] = []
        super().__init__(packets, client)

    def is_local(self, address: Address) -> bool:
        return address in ((OLD, NEW) if self.client else (SERVER,))

    def _outputs(self) -> list[bytes]:
        outputs = self.stack.take_outputs()
        found = [item for item in outputs if isinstance(item, Send)]
        self.ways += [Sent(item.source, item.destination, unmarked(item.data)) for item in found]
        # Once more for the rest of what an End does with them.
        self.stack._context.outputs = outputs
        return super()._outputs()

    def move(self, now: float) -> None:
        (flow,) = self.stack.flows
        self.stack.migrate(flow.local_flow, NEW, now, Cause("by hand", False, now, now))
        self._outputs()

    def tick(self, now: float) -> None:
        self.stack.handle_timer(now)
        self._outputs()

    def with_flags(self, flags: int) -> list[Sent]:
        return [sent for sent in self.ways if sent.control is not None and sent.control.flags == flags]


def flags_of(found: Captured) -> int:
    control = found.packet.control
    return 0 if control is None else control.flags


def replay(name: str, *, client: bool, lost: int = 0) -> tuple[Mover, list[Captured]]:
    """Plays one end against the other's captured packets; the first ``lost`` RSYNs do not arrive."""
    packets = captured(name)
    end = Mover(packets, client)
    moved = False
    for found in packets:
        ours = found.ip.source in (OLD, NEW) if client else found.ip.source == SERVER
        if not ours:
            if flags_of(found) & _RSYN and not flags_of(found) & _ACK and lost:
                lost -= 1
            else:
                end.network(found, found.time)
        elif found.packet.payload:
            end.kernel(found.packet.payload, found.time)
        elif flags_of(found) == _RSYN:
            # The capture's first RSYN is the program's order to move, the others are repetitions.
            (end.tick if moved else end.move)(found.time)
            moved = True
    return end, packets


@pytest.mark.parametrize("name", ["mig-rsynlost-client", "mig-rsynlost-server"])
@pytest.mark.statement("S46")
def test_our_client_moves_as_the_original_does(name: str) -> None:
    """A lost RSYN is the same when it comes again; RSYN-ACK, ACK, data and close are the captured bytes."""
    end, packets = replay(name, client=True)
    expected = [found for found in packets if found.ip.source in (OLD, NEW)]
    assert sorted(sent.data for sent in end.ways) == sorted(found.data for found in expected)
    wanted = [(found.ip.source, found.ip.destination) for found in expected if flags_of(found)]
    assert [(sent.source, sent.destination) for sent in end.ways if sent.control is not None] == wanted
    (first, second), (ack, *_) = end.with_flags(_RSYN), end.with_flags(_ACK)[1:]
    assert first == second and (ack.source, ack.destination) == (NEW, SERVER)
    assert end.stack.counters == {}
    (flow,) = end.stack.flows
    assert flow.local_address == NEW and flow.migration is not None and flow.migration.state is MigrationState.INITIAL


@pytest.mark.parametrize("name", ["mig-rsynlost-client", "mig-rsynlost-server"])
@pytest.mark.statement("S46")
def test_our_server_follows_as_the_original_does(name: str) -> None:
    """An unmarked peer is followed at its ACK: data of the time before goes to the old address."""
    end, packets = replay(name, client=False, lost=1)
    expected = [found for found in packets if found.ip.source == SERVER]
    control = [found for found in expected if flags_of(found)]
    assert [sent.data for sent in end.ways if sent.control is not None] == [found.data for found in control]
    ways = [(sent.source, sent.destination) for sent in end.ways if sent.control is not None]
    assert ways == [(found.ip.source, found.ip.destination) for found in control]
    # The captured kernel's segments carry checksums for addresses that are ours at the same time.
    assert sorted(sent.data for sent in end.ways) == sorted(found.data for found in expected)
    assert end.stack.counters == {}
    assert not list(end.stack.flows)


def test_our_client_is_not_stuck_where_the_original_is() -> None:
    """The server's ACK of a repeated RSYN, sent to the old address, completes nothing ("what completes a move"): we go
    on asking, with the FIN beside it as the original does, and an RSYN-ACK completes the move.
    """
    end, packets = replay("mig-client", client=True)
    rsyns = [found for found in packets if flags_of(found) == _RSYN]
    assert [sent.data for sent in end.with_flags(_RSYN)] == [found.data for found in rsyns]
    (flow,) = end.stack.flows
    assert flow.migration is not None and flow.migration.state is MigrationState.RSYN_SENT
    (both,) = [found for found in packets if flags_of(found) == _RSYN | _FIN]
    assert both.data in [sent.data for sent in end.with_flags(_RSYN | _FIN)]
    last = next(found for found in reversed(packets) if found.ip.source == SERVER and flags_of(found) == _ACK)
    control = control_of(last.packet)
    completing = Control(_RSYN | _ACK, control.verno, control.ackno, control.nonce)
    answer = encode(replace(last.packet, extensions=(completing,)))
    end.stack.network_packet(build_ipv4(SERVER, NEW, PROTOCOL_SERVAL, answer), last.time + 0.1)
    end._outputs()
    assert flow.migration.state is MigrationState.INITIAL and flow.local_address == NEW
    assert flow.state is State.FINWAIT2


def test_our_server_does_not_let_that_client_get_stuck() -> None:
    """To a repeated RSYN we say RSYN-ACK again, to where the copy came from, with the original's numbers."""
    end, packets = replay("mig-client", client=False)
    asked = [found for found in packets if flags_of(found) & _RSYN and found.ip.source == NEW]
    answers = end.with_flags(_RSYN | _ACK)
    assert [(sent.source, sent.destination) for sent in answers] == [(SERVER, NEW)] * len(asked)
    for sent, found in zip(answers, asked, strict=True):
        assert sent.control is not None and sent.control.ackno == control_of(found.packet).verno + 1
    originals = [control_of(found.packet) for found in packets if found.ip.source == SERVER and flags_of(found) == _ACK]
    ours = [sent.control for sent in answers]
    for control in originals:
        assert Control(_RSYN | _ACK, control.verno, control.ackno, control.nonce) in ours
