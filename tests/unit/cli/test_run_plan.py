"""Which names a command's listening sockets get."""

from __future__ import annotations

from serval_node.cli.run_plan import TCP, UDP, Listener, Part, Step, plan, steps


def tcp(*ports: int) -> list[Listener]:
    return [(TCP, port) for port in ports]


def test_one_port_is_the_bare_name_whichever_it_is() -> None:
    assert plan(tcp(80), None) == {Part(-1, 80)}
    assert plan(tcp(8080, 8080), None) == {Part(-1, 8080)}
    assert plan(tcp(8080), 8080) == {Part(-1, 8080)}
    assert Part(-1, 80).service_port is None


def test_several_ports_are_name_and_port() -> None:
    assert plan(tcp(80, 443), None) == {Part(80, 80), Part(443, 443)}


def test_the_main_port_also_takes_port_field_zero() -> None:
    assert plan(tcp(80, 443), 443) == {Part(80, 80), Part(443, 443), Part(0, 443)}
    assert plan(tcp(80, 443), 99) == {Part(80, 80), Part(443, 443)}
    assert plan([], 80) == set()


def test_new_bindings_come_before_old_ones_go() -> None:
    sockets = {(TCP, 80): frozenset({1}), (TCP, 443): frozenset({2})}
    bound = {Part(-1, 80): frozenset({1})}
    assert steps(plan(sockets, None), sockets, bound) == [
        Step(True, Part(80, 80), (1,)),
        Step(True, Part(443, 443), (2,)),
        Step(False, Part(-1, 80), (1,)),
    ]


def test_another_worker_on_the_port_is_bound_too() -> None:
    sockets = {(TCP, 80): frozenset({1, 2})}
    bound = {Part(-1, 80): frozenset({1})}
    assert steps(plan(sockets, None), sockets, bound) == [Step(True, Part(-1, 80), (1, 2))]
    assert steps(plan(sockets, None), sockets, {Part(-1, 80): frozenset({1, 2})}) == []


def test_a_udp_port_counts_like_one_of_tcp_and_one_of_both_transports_once() -> None:
    assert plan([(UDP, 53)], None) == {Part(-1, 53, UDP)}
    assert plan([(UDP, 53), (TCP, 53)], None) == {Part(-1, 53, UDP), Part(-1, 53, TCP)}
    assert plan([(UDP, 53), (TCP, 80)], 53) == {Part(53, 53, UDP), Part(80, 80, TCP), Part(0, 53, UDP)}
