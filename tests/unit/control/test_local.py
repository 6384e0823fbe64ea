"""The local control socket's protocol, over real unix sockets."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from serval_node.control import local
from serval_node.control.local import AsyncClient, Client, ControlError, ControlUnreachable, LineDecoder, ProtocolError

Handler = Callable[[socket.socket, dict[str, object]], None]


def reply(connection: socket.socket, request: dict[str, object]) -> None:
    """A daemon of few words."""
    op = request["op"]
    if op == "echo":
        connection.sendall(local.encode({"ok": True, "said": request.get("text")}))
    elif op == "count":
        connection.sendall(local.encode({"ok": True, "stream": True}))
        for n in range(3):
            connection.sendall(local.encode({"n": n}))
        connection.sendall(local.encode({"end": True}))
    elif op == "garbage":
        connection.sendall(b"what?\n")
    elif op == "die":
        connection.close()
    elif op != "sleep":
        connection.sendall(local.encode(local.refusal(f"unknown operation {op!r}\nreally")))


@pytest.fixture
def path(tmp_path: Path) -> Iterator[str]:
    where = str(tmp_path / "control.sock")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(where)
    listener.listen()
    connections: list[socket.socket] = []

    def serve(connection: socket.socket) -> None:
        decoder = LineDecoder()
        try:
            while data := connection.recv(7):
                for request in decoder.feed(data):
                    reply(connection, request)
        except OSError:
            pass  # closed by "die" or by the end of the test

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            connections.append(connection)
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    yield where
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join(5)
    for connection in connections:
        connection.close()


def test_requests_and_answers(path: str) -> None:
    with Client(path) as client:
        assert client.request("echo", text="ä" * 100_000) == {"said": "ä" * 100_000}
        assert client.request("echo") == {"said": None}


def test_a_refusal_is_one_line(path: str) -> None:
    with Client(path) as client:
        with pytest.raises(ControlError) as caught:
            client.request("fly")
        assert str(caught.value) == "unknown operation 'fly' really"
        assert client.request("echo", text=1) == {"said": 1}, "the connection lives on"


def test_a_stream_ends_where_the_daemon_says(path: str) -> None:
    client = Client(path)
    assert [report["n"] for report in client.stream("count")] == [0, 1, 2]
    with pytest.raises(ControlError, match="unknown operation"):
        client.stream("fly")
    client.close()


def test_no_daemon_no_answer_and_lost_connections_are_told(path: str, tmp_path: Path) -> None:
    with pytest.raises(ControlUnreachable, match=r"missing\.sock.*running"):
        Client(str(tmp_path / "missing.sock")).request("echo")
    with Client(path, timeout=0.05) as client, pytest.raises(ControlUnreachable, match=r"no answer within 0\.05 s"):
        client.request("sleep")
    with Client(path) as client:
        with pytest.raises(ControlUnreachable, match="closed the connection"):
            client.request("die")
        assert client.request("echo", text=2) == {"said": 2}, "a new connection is made"
        with pytest.raises(ProtocolError):
            client.request("garbage")


def test_the_asynchronous_client_does_the_same(path: str, tmp_path: Path) -> None:
    async def main() -> None:
        async with AsyncClient(path) as client:
            answers = await asyncio.gather(*(client.request("echo", text=n) for n in range(20)))
            assert [answer["said"] for answer in answers] == list(range(20))
            with pytest.raises(ControlError, match="unknown operation"):
                await client.request("fly")
            with pytest.raises(ControlUnreachable, match="closed"):
                await client.request("die")
            assert await client.request("echo", text=3) == {"said": 3}
        async with AsyncClient(path, timeout=0.05) as client:
            with pytest.raises(ControlUnreachable, match="no answer"):
                await client.request("sleep")
            assert await client.request("echo", text=4) == {"said": 4}, "a late answer is not taken for this one's"
        with pytest.raises(ControlUnreachable):
            await AsyncClient(str(tmp_path / "missing.sock")).request("echo")

    asyncio.run(main())


@pytest.mark.parametrize("line", [b"[]\n", b"12\n", b"{\n", b"\xff\n", b"\n", b"[" * 100_000 + b"\n"])
def test_lines_that_are_no_objects_are_refused(line: bytes) -> None:
    with pytest.raises(ProtocolError):
        LineDecoder().feed(line)


def test_an_endless_line_is_refused() -> None:
    decoder = LineDecoder(limit=10)
    assert decoder.feed(b'{"a":1}\n{"b"') == [{"a": 1}]
    with pytest.raises(ProtocolError, match="more than 10"):
        decoder.feed(b":2         ")


@pytest.mark.parametrize(
    ("there", "said"),
    [
        (None, "this host has no Serval node: .*--host serval"),
        ([], "this host has no Serval node: .*--host serval"),
        (["servald.log"], "is the daemon running in this host"),
    ],
)
def test_a_host_without_a_node_is_told_from_one_whose_node_has_ended(
    there: list[str] | None, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "serval" / "control.sock"
    if there is not None:
        path.parent.mkdir()
    for name in there or []:
        (path.parent / name).touch()
    monkeypatch.setattr(local, "CONTROL_PATH", str(path))
    with pytest.raises(ControlUnreachable, match=said):
        Client(str(path)).request("status")
    with pytest.raises(ControlUnreachable, match="is the daemon running"):
        Client(str(tmp_path / "elsewhere.sock")).request("status")
