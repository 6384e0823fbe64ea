"""The node on real links: names, unmodified programs, serval_node.socket, listening sockets and their rules.

Two hosts on a bridge, rules made by hand: no controller, no Mininet.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from serval_node.control.local import Client
from tests.emulation.node_hosts import Host, HostNet, host_net, refusal, wait_for
from tests.emulation.static_server import write_static_server

SERVER = [sys.executable, "-u", "-m", "http.server"]


@pytest.fixture(scope="module")
def net() -> Iterator[HostNet]:
    with host_net() as net:
        for host in [net.add_plain(name) for name in ("ann", "dan")]:
            net.start_node(host)
        yield net


@pytest.fixture
def ann(net: HostNet) -> Host:
    return net.hosts["ann"]


@pytest.fixture
def dan(net: HostNet) -> Iterator[Host]:
    """The server's host; whatever a test started there is ended after it, and its rules with it."""
    dan = net.hosts["dan"]
    yield dan
    for process in dan.started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                stream.close()
    dan.started.clear()


@pytest.fixture
def page(tmp_path: Path) -> Path:
    (tmp_path / "index.html").write_text("hello from dan\n")
    return tmp_path


def served(host: Host, service: str, count: int = 1) -> list[dict[str, object]]:
    return wait_for(
        f"{count} target(s) for {service} at {host.name}",
        lambda: len(rules := host.rules(service)) == count and rules,
    )


def gone(host: Host, service: str) -> None:
    wait_for(f"the end of the rule for {service}", lambda: not host.rules(service))


# -- unmodified programs


@pytest.mark.statement("S25")
def test_curl_reaches_a_service_by_name_and_kill_9_ends_it(ann: Host, dan: Host, page: Path) -> None:
    run = dan.serve("web.example", *SERVER, "80", "--directory", str(page), stderr=subprocess.DEVNULL)
    target = served(dan, "web.example")[0]
    assert (target["action"], target["where"]) == ("demux", "198.18.0.1:80")
    ann.forward("web.example", dan.address)
    for _ in range(3):
        done = ann.run("curl", "-sS", "--max-time", "10", "http://web.example/")
        assert done.stdout == "hello from dan\n"
    child = wait_for("the server's process", lambda: children(run.pid))[0]
    started = time.monotonic()
    os.kill(child, signal.SIGKILL)
    gone(dan, "web.example")
    assert time.monotonic() - started < 1.0
    assert run.wait(10) == 128 + signal.SIGKILL
    refused = ann.run("curl", "-sS", "--max-time", "2", "http://web.example/", check=False)
    assert refused.returncode != 0


def children(pid: int) -> list[int]:
    """Processes of `serval run` below nsenter, which execs it."""
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.statement("S9")
def test_two_servers_of_one_service_on_one_host(ann: Host, dan: Host, tmp_path: Path) -> None:
    for port in ("8001", "8002"):
        folder = tmp_path / port
        folder.mkdir()
        (folder / "index.html").write_text(port)
        dan.serve("twin.example", *SERVER, port, "--directory", str(folder), stderr=subprocess.DEVNULL)
    assert {target["where"] for target in served(dan, "twin.example", 2)} == {"198.18.0.1:8001", "198.18.0.1:8002"}
    ann.forward("twin.example", dan.address)
    answers = {ann.run("curl", "-sS", "--max-time", "10", "http://twin.example/").stdout for _ in range(20)}
    assert answers == {"8001", "8002"}


SEVERAL = """
import socket, sys, time
socks = [socket.create_server((host, int(port))) for host, port in (word.rsplit(":", 1) for word in sys.argv[1:])]
print("up", flush=True)
while line := sys.stdin.readline():
    socks.pop(int(line)).close()
"""


def several(dan: Host, *addresses: str, main: int | None = None) -> subprocess.Popen[str]:
    return dan.serve(
        "multi.example",
        sys.executable,
        "-c",
        SEVERAL,
        *addresses,
        main=main,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def services(host: Host) -> dict[str, str]:
    """Service -> where, of every DEMUX target."""
    return {
        entry["service"]: target["where"]
        for entry in host.ask("table")["entries"]
        for target in entry["targets"]
        if target["action"] == "demux"
    }


def test_several_ports_are_name_and_port_and_main_takes_the_bare_connect(dan: Host) -> None:
    run = several(dan, "0.0.0.0:8080", "0.0.0.0:9090", main=9090)
    wait_for(
        "the three rules",
        lambda: (
            services(dan)
            == {
                "multi.example:8080": "198.18.0.1:8080",
                "multi.example:9090": "198.18.0.1:9090",
                "multi.example:0": "198.18.0.1:9090",
            }
        ),
    )
    assert run.stdin is not None
    run.stdin.write("0\n")
    run.stdin.flush()
    wait_for("the bare name", lambda: services(dan) == {"multi.example": "198.18.0.1:9090"})


def test_loopback_and_specific_listeners(ann: Host, dan: Host, page: Path) -> None:
    run = several(dan, "127.0.0.1:8080", f"{dan.address}:9090")
    wait_for(
        "both rules",
        lambda: services(dan) == {"multi.example:8080": "127.0.0.1:8080", "multi.example:9090": f"{dan.address}:9090"},
    )
    ann.forward("multi.example", dan.address)
    for port in (8080, 9090):
        assert ann.python(f"import socket; socket.create_connection(('multi.example', {port}), 5)")
    assert run.stderr is not None
    os.set_blocking(run.stderr.fileno(), False)
    text = run.stderr.read()
    assert f"warning: port 9090 listens on {dan.address} only: its flows cannot outlive that address" in text
    assert "127.0.0.1" not in text


def test_a_v6_only_listener_is_refused_with_the_reason(dan: Host) -> None:
    program = """
import socket
s = socket.socket(socket.AF_INET6)
s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
s.bind(("::", 8080)); s.listen()
input()
"""
    run = dan.serve(
        "six.example", sys.executable, "-c", program, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert run.stderr is not None
    line = run.stderr.readline()
    assert "six.example is not served" in line
    assert "IPV6_V6ONLY" in line
    assert dan.rules("six.example") == []


def test_a_dual_stack_listener_is_reached(ann: Host, dan: Host) -> None:
    program = """
import socket
s = socket.socket(socket.AF_INET6)
s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
s.bind(("::", 8080)); s.listen()
while True: s.accept()[0].sendall(b"dual")
"""
    dan.serve("dual.example", sys.executable, "-c", program)
    assert served(dan, "dual.example")[0]["where"] == "198.18.0.1:8080"
    ann.forward("dual.example", dan.address)
    assert ann.serval("connect", "dual.example", input="").stdout == "dual"


PREFORK = """
import os, socket, sys
s = socket.create_server(("0.0.0.0", 8088))
for _ in range(3):
    if os.fork() == 0:
        os.setsid()
        while True:
            c, _ = s.accept(); c.sendall(b"worker"); c.close()
print(os.getpid(), flush=True)
s.close()
os.wait()
"""


def test_a_prefork_server_is_served_until_its_last_worker_dies(ann: Host, dan: Host) -> None:
    run = dan.serve("fork.example", sys.executable, "-c", PREFORK, stdout=subprocess.PIPE, text=True)
    assert run.stdout is not None
    parent = int(run.stdout.readline())
    served(dan, "fork.example")
    ann.forward("fork.example", dan.address)
    workers = children(parent)
    assert len(workers) == 3
    os.kill(parent, signal.SIGKILL)
    for worker in workers:
        assert ann.serval("connect", "fork.example", input="").stdout == "worker"
        os.kill(worker, signal.SIGKILL)
    gone(dan, "fork.example")
    assert run.wait(10) == 128 + signal.SIGKILL


def test_a_static_binary_is_served(ann: Host, dan: Host, tmp_path: Path) -> None:
    write_static_server(tmp_path / "server")
    dan.serve("static.example", str(tmp_path / "server"))
    served(dan, "static.example")
    ann.forward("static.example", dan.address)
    assert ann.serval("connect", "static.example", input="").stdout.startswith("static")


def test_shutdown_of_a_listener_ends_its_rule_by_the_poll(dan: Host) -> None:
    """No kernel event tells of it; nobody but servald watches here, because there is no `serval run`."""
    program = """
import socket, time
s = socket.create_server(("0.0.0.0", 8091)); print("up", flush=True)
input(); s.shutdown(socket.SHUT_RDWR); time.sleep(60)
"""
    process = dan.popen(sys.executable, "-c", program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None and process.stdout is not None
    assert process.stdout.readline() == "up\n"
    bound = dan.serval("bind", "shut.example", "8091").stdout
    assert bound.endswith("is served by port 8091 as long as it listens\n")
    assert len(dan.rules("shut.example")) == 1
    started = time.monotonic()
    process.stdin.write("\n")
    process.stdin.flush()
    gone(dan, "shut.example")
    assert time.monotonic() - started < 1.0


CLOSING = """
import sys
from serval_node import socket as serval
servers = [serval.create_server(f"c{number}.example") for number in range(8)]
print("up", flush=True)
while line := sys.stdin.readline(): servers.pop(0).close()
"""


def test_the_end_of_a_listener_is_heard_and_not_polled(dan: Host) -> None:
    """With the kernel's destroy groups it takes milliseconds; the poll alone would take 100 ms on average."""
    process = dan.popen(sys.executable, "-c", CLOSING, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdin is not None
    assert process.stdout.readline() == "up\n"
    times = []
    with Client(str(dan.run_dir / "control.sock")) as client:
        for left in range(8, 0, -1):
            assert len(client.request("table")["entries"]) == left
            started = time.monotonic()
            process.stdin.write("\n")
            process.stdin.flush()
            while len(client.request("table")["entries"]) == left:
                assert time.monotonic() - started < 5
            times.append(time.monotonic() - started)
            time.sleep(0.03)  # out of step with the poll
    print(f"close to rule gone: median {sorted(times)[4] * 1000:.1f} ms, max {max(times) * 1000:.1f} ms")
    assert sorted(times)[6] < 0.08


DETACHING = """
import os, socket, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        time.sleep(0.5)
        s = socket.create_server(("0.0.0.0", 8093))
        while True: s.accept()[0].sendall(b"detached")
    os._exit(0)
os.wait()
"""


def test_a_server_that_detaches_is_followed(ann: Host, dan: Host) -> None:
    run = dan.serve("detach.example", sys.executable, "-c", DETACHING)
    served(dan, "detach.example")
    ann.forward("detach.example", dan.address)
    assert ann.python("import socket; print(socket.create_connection(('detach.example', 80), 5).recv(9))").stdout
    assert run.poll() is None, "serval run stays as long as any process of the tree"
    for pid in children(run.pid):
        os.kill(pid, signal.SIGKILL)
    gone(dan, "detach.example")
    assert run.wait(10) == 0, "the status is the command's own"


def test_run_says_clearly_what_is_wrong(dan: Host) -> None:
    missing = dan.serval("run", "--service", "web.example", "--", "no-such-program", check=False)
    assert (missing.returncode, missing.stderr) == (127, "serval: no-such-program: no such program\n")
    label = "x" * 64
    wrong = dan.serval("run", "--service", f"{label}.example", "--", "true", check=False)
    assert wrong.returncode == 1
    assert "at most 63" in wrong.stderr
    assert len(wrong.stderr.splitlines()) == 1
    port = dan.serval("run", "--service", "web.example:80", "--", "true", check=False)
    assert (port.returncode, len(port.stderr.splitlines())) == (1, 1)
    assert dan.serval("run", "--service", "web.example", "--", "sh", "-c", "exit 7", check=False).returncode == 7


def test_repeated_connects_to_what_is_no_name_are_one_line(ann: Host) -> None:
    for text in ("single", "cafe", "0xzz", "*.example", f"{'x' * 64}.example", "web.example:99999"):
        wrong = ann.serval("connect", text, "--count", "3", check=False)
        assert (wrong.returncode, wrong.stdout, len(wrong.stderr.splitlines())) == (1, "", 1), text


def test_sigterm_is_forwarded(dan: Host) -> None:
    run = dan.serve("web.example", *SERVER, "80", stderr=subprocess.DEVNULL)
    served(dan, "web.example")
    run.terminate()
    assert run.wait(10) == 128 + signal.SIGTERM
    gone(dan, "web.example")


# -- names


def test_names_in_a_host(net: HostNet, ann: Host) -> None:
    lookup = ann.python("import socket; print(*(socket.gethostbyname(name) for name in ('Any.Example', 'dan', 'ann')))")
    service, dan, own = lookup.stdout.split()
    assert service.startswith("198.18.")
    assert (dan, own) == (net.hosts["dan"].address, ann.address)
    started = time.monotonic()
    nowhere = ann.run("getent", "ahosts", "nowhere", check=False)
    assert nowhere.returncode == 2
    assert time.monotonic() - started < 2
    assert Path("/etc/resolv.conf").read_text() != (ann.run_dir / "resolv.conf").read_text()


def test_names_and_addresses_survive_a_restart(net: HostNet) -> None:
    eve = net.add("eve")
    names = [f"s{number}.example" for number in range(30)]
    before = {name: eve.ask("address", name=name)["address"] for name in names}
    net.kill_node(eve)
    net.start_node(eve)
    assert {row["name"]: row["address"] for row in eve.ask("names")["names"]} == before
    net.stop_node(eve)


def test_ping_of_a_virtual_address_gets_an_error_at_once(ann: Host) -> None:
    ann.run("getent", "hosts", "ping.example")
    started = time.monotonic()
    done = ann.run("ping", "-c", "1", "-W", "5", "ping.example", check=False)
    assert done.returncode == 1
    assert "nreachable" in done.stdout
    assert time.monotonic() - started < 3


# -- errors of connect


@pytest.mark.statement("S28", "S29")
def test_no_rule_and_drop_fail_at_once(ann: Host) -> None:
    started = time.monotonic()
    none = ann.serval("connect", "nobody.example", check=False, input="")
    assert (none.returncode, none.stderr) == (
        1,
        "serval: no rule of this host leads to nobody.example, "
        "or no route to where it leads (serval explain nobody.example)\n",
    )
    ann.ask("rule_set", prefix="bad.example", targets=[{"action": "drop"}])
    dropped = ann.serval("connect", "bad.example", check=False, input="")
    assert (dropped.returncode, dropped.stderr) == (
        1,
        "serval: this host refuses bad.example: a DROP rule, or a wait under DELAY that ended without another rule\n",
    )
    assert time.monotonic() - started < 5
    wrong = ann.serval("connect", "single", check=False, input="")
    assert wrong.returncode == 1
    assert len(wrong.stderr.splitlines()) == 1


# -- serval_node.socket


API_SERVER = """
import sys
from serval_node import socket as serval
with serval.socket() as server:
    server.bind("api.example")
    print("bound", flush=True); sys.stdin.readline()
    server.listen()
    print("listening", *server.kernel_name(), flush=True)
    for _ in range(2):
        conn, peer = server.accept()
        assert peer == ("", 0), peer
        with conn:
            conn.sendall(conn.local_service.hex().encode())
    print("done", flush=True); sys.stdin.readline()
print("closed", flush=True); sys.stdin.readline()
"""

API_CLIENT = """
import json, sys
from serval_node import socket as serval
out = {}
for port in (0, 7777):
    with serval.create_connection(("api.example", port) if port else "api.example", 10) as conn:
        data = b""
        while piece := conn.recv(4096): data += piece
        out[port] = [data.decode(), conn.getpeername(), conn.getsockname()]
print(json.dumps(out))
"""


@pytest.mark.statement("S13", "S20", "S33")
def test_bind_listen_accept_by_name(ann: Host, dan: Host) -> None:
    """S20, S33 and what accept() tells; the same rule also takes a connect to another port field (prefix bind)."""
    server = dan.popen(sys.executable, "-c", API_SERVER, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None and server.stdin is not None

    def step(expected: str) -> None:
        assert server.stdout is not None and server.stdin is not None
        assert server.stdout.readline().startswith(expected)

    step("bound")
    assert dan.rules("api.example") == [], "bind alone advertises nothing"
    server.stdin.write("\n")
    server.stdin.flush()
    step("listening 198.18.0.1")
    assert len(dan.rules("api.example")) == 1, "the rule stands when listen() has returned"
    ann.forward("api.example", dan.address)
    answers = json.loads(ann.python(API_CLIENT).stdout)
    own = ann.ask("address", name="api.example")["service"].removeprefix("0x")
    other = ann.ask("address", name="api.example", port=7777)["service"].removeprefix("0x")
    assert own != other
    assert answers == {
        "0": [own, ["api.example", 0], ["", 0]],
        "7777": [other, ["api.example", 7777], ["", 0]],
    }
    step("done")
    server.stdin.write("\n")
    server.stdin.flush()
    step("closed")
    gone(dan, "api.example")
    server.stdin.write("\n")
    server.stdin.flush()
    assert server.wait(10) == 0


def test_asking_again_whether_it_is_connected_prepares_nothing(ann: Host, dan: Host) -> None:
    """connect_ex() repeated until it is done leaves no flowID behind that a later program on the port would take."""
    server = dan.popen(sys.executable, "-c", API_SERVER, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None and server.stdin is not None
    server.stdout.readline()
    server.stdin.write("\n")
    server.stdin.flush()
    server.stdout.readline()
    ann.forward("api.example", dan.address)
    program = """
import errno, json, select
from serval_node import socket as serval
out = []
for _ in range(2):
    sock = serval.socket()
    sock.setblocking(False)
    assert sock.connect_ex("api.example") == errno.EINPROGRESS
    select.select([], [sock], [], 10)
    assert sock.connect_ex("api.example") in (0, errno.EISCONN)
    from serval_node.control.local import Client
    import os
    with Client(os.environ.get("SERVAL_CONTROL", "/run/serval/control.sock")) as client:
        out.append([flow["state"] for flow in client.request("flows")["flows"]].count("RESERVED"))
    sock.setblocking(True)
    while sock.recv(4096): pass
    sock.close()
print(json.dumps(out))
"""
    assert json.loads(ann.python(program).stdout) == [0, 0]
    server.kill()
    server.wait()


@pytest.mark.statement("S37")
def test_a_socket_has_its_flow_id_from_the_start(ann: Host) -> None:
    """S37: the row is there from socket() on, and goes with the socket, or with its process."""
    program = """
import sys
from serval_node import socket as serval
a, b = serval.socket(), serval.socket()
print("made", flush=True); sys.stdin.readline()
a.close()
print("closed", flush=True); sys.stdin.readline()
"""
    before = {flow["flow_id"] for flow in ann.ask("flows")["flows"]}

    def reserved() -> int:
        return len({flow["flow_id"] for flow in ann.ask("flows")["flows"]} - before)

    process = ann.popen(sys.executable, "-c", program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdin is not None
    assert process.stdout.readline() == "made\n"
    assert reserved() == 2
    process.stdin.write("\n")
    process.stdin.flush()
    assert process.stdout.readline() == "closed\n"
    assert reserved() == 1
    process.kill()
    process.wait()
    wait_for("the release of the flowID", lambda: reserved() == 0)


@pytest.mark.statement("S51")
def test_ordinary_sockets_work_beside(ann: Host, dan: Host, page: Path) -> None:
    """S51: one process uses a Serval socket and a plain one at the same time."""
    dan.serve("web.example", *SERVER, "80", "--directory", str(page), stderr=subprocess.DEVNULL)
    served(dan, "web.example")
    ann.forward("web.example", dan.address)
    program = f"""
import http.client, socket
from serval_node import socket as serval
plain = http.client.HTTPConnection("{dan.address}", 80, timeout=10)
by_name = http.client.HTTPConnection("web.example", timeout=10)
by_name.sock = serval.create_connection("web.example", 10)
for c in (plain, by_name): c.request("GET", "/")
print(plain.getresponse().read() == by_name.getresponse().read() == b"hello from dan\\n")
"""
    assert ann.python(program).stdout == "True\n"


ASYNC = """
import asyncio, sys
from serval_node import socket as serval

async def serve():
    async def talk(reader, writer):
        text = (await reader.readline()).strip()
        writer.write(text.upper() + b" " + serval.local_service(writer).hex().encode() + b"\\n")
        await writer.drain()
        writer.close()
    server = await serval.start_server(talk, "async.example")
    print("up", flush=True)
    async with server:
        await server.serve_forever()

async def ask(text):
    reader, writer = await serval.open_connection("async.example")
    writer.write(text)
    answer = await reader.readline()
    writer.close()
    await writer.wait_closed()
    return answer

async def main():
    print(sum(a.startswith(b"HELLO ") for a in await asyncio.gather(*(ask(b"hello\\n") for _ in range(20)))))
    print((await ask(b"hello\\n")).decode(), end="")

asyncio.run(serve() if sys.argv[1] == "serve" else main())
"""


def test_asyncio_by_service(ann: Host, dan: Host) -> None:
    server = dan.popen(sys.executable, "-c", ASYNC, "serve", stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    assert server.stdout.readline() == "up\n"
    assert len(dan.rules("async.example")) == 1
    ann.forward("async.example", dan.address)
    service = ann.ask("address", name="async.example")["service"].removeprefix("0x")
    assert ann.python(ASYNC, "ask").stdout.splitlines() == ["20", f"HELLO {service}"]


def test_tls_by_service(ann: Host, dan: Host, tmp_path: Path) -> None:
    """The reserved kernel port of port field 0 is what keeps ssl working: it needs getpeername()."""
    cert, key = str(tmp_path / "cert.pem"), str(tmp_path / "key.pem")
    done = subprocess.run(
        f"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=tls.example "
        f"-addext subjectAltName=DNS:tls.example -keyout {key} -out {cert}".split(),
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    server = f"""
import ssl
from serval_node import socket as serval
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER); context.load_cert_chain({cert!r}, {key!r})
with serval.create_server("tls.example") as s:
    print("up", flush=True)
    conn, _ = s.accept()
    asked = conn.local_service
    with context.wrap_socket(conn, server_side=True) as tls:
        tls.sendall(tls.recv(100)[::-1])
        print(asked == serval.local_service(tls) == conn.local_service, asked.hex(), flush=True)
    with context.wrap_socket(s, server_side=True) as listener:
        tls, peer = listener.accept()
        with tls:
            tls.sendall(tls.recv(100)[::-1])
            print(peer[0].startswith("198.19."), serval.local_service(tls).hex(), flush=True)
"""
    client = f"""
import asyncio, ssl
from serval_node import socket as serval
context = ssl.create_default_context(cafile={cert!r})
with context.wrap_socket(serval.create_connection("tls.example", 10), server_hostname="tls.example") as tls:
    tls.sendall(b"abc"); print(tls.recv(100).decode())
async def main():
    reader, writer = await serval.open_connection("tls.example", ssl=context)
    writer.write(b"xyz"); print((await reader.read(100)).decode()); writer.close()
asyncio.run(main())
"""
    process = dan.popen(sys.executable, "-c", server, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    ann.forward("tls.example", dan.address)
    assert ann.python(client).stdout == "cba\nzyx\n"
    asked = ann.ask("address", name="tls.example")["service"].removeprefix("0x")
    assert [process.stdout.readline() for _ in range(2)] == [f"True {asked}\n"] * 2


# -- peers


def test_an_unmodified_server_sees_one_address_per_client(ann: Host, dan: Host) -> None:
    program = """
import socket
s = socket.create_server(("0.0.0.0", 8092))
while True:
    c, peer = s.accept(); c.sendall(peer[0].encode()); c.close()
"""
    dan.serve("peer.example", sys.executable, "-c", program)
    served(dan, "peer.example")
    ann.forward("peer.example", dan.address)
    seen = {ann.serval("connect", "peer.example", input="").stdout for _ in range(3)}
    assert len(seen) == 1
    assert re.fullmatch(r"198\.19\.\d+\.\d+", seen.pop())


# -- bytes


COPY_SERVER = """
import hashlib, sys
from serval_node import socket as serval
with serval.create_server("bulk.example") as s:
    print("up", flush=True)
    while True:
        conn, _ = s.accept()
        with conn:
            digest, size = hashlib.sha256(), 0
            while data := conn.recv(1 << 18):
                digest.update(data); size += len(data)
            block = bytes(range(256)) * 4096
            for _ in range(100): conn.sendall(block[:1000000])
            conn.sendall(digest.digest())
"""

COPY_CLIENT = """
import hashlib, os, time
from serval_node import socket as serval
block = os.urandom(1000000)
own, other, tail = hashlib.sha256(), hashlib.sha256(), b""
conn = serval.create_connection("bulk.example", 60)
start = time.monotonic()
for _ in range(100): conn.sendall(block); own.update(block)
conn.shutdown(1)
sent = time.monotonic()
data = b""; total = 0
while piece := conn.recv(1 << 18):
    data = data + piece
    total += len(piece)
    if len(data) > 32: other.update(data[:-32]); data = data[-32:]
end = time.monotonic()
expected = hashlib.sha256((bytes(range(256)) * 4096)[:1000000] * 100).digest()
print(data == own.digest(), other.digest() == expected, total, round(800 / (sent - start)), round(800 / (end - sent)))
"""


@pytest.mark.statement("100 MB", "half-close")
def test_100_megabytes_both_ways_after_a_half_close(ann: Host, dan: Host) -> None:
    server = dan.popen(sys.executable, "-c", COPY_SERVER, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    assert server.stdout.readline() == "up\n"
    ann.forward("bulk.example", dan.address)
    words = ann.python(COPY_CLIENT, limit=120).stdout.split()
    assert words[:3] == ["True", "True", "100000032"]
    print(f"100 MB up at {words[3]} Mbit/s, down at {words[4]} Mbit/s")


ECHO = """
import asyncio
from serval_node import socket as serval
async def main():
    async def talk(reader, writer):
        while data := await reader.read(65536): writer.write(data)
        writer.close()
    server = await serval.start_server(talk, "echo.example", backlog=512)
    print("up", flush=True)
    async with server: await server.serve_forever()
asyncio.run(main())
"""

PARALLEL = """
import asyncio, hashlib, os, time
from serval_node import socket as serval
times = []
async def one():
    data = os.urandom(100000)
    start = time.monotonic()
    reader, writer = await serval.open_connection("echo.example")
    times.append(time.monotonic() - start)
    writer.write(data); writer.write_eof()
    back = await reader.read()
    while piece := await reader.read(): back += piece
    writer.close()
    return back == data
async def main():
    start = time.monotonic()
    good = await asyncio.gather(*(one() for _ in range(200)))
    times.sort()
    print(sum(good), round(time.monotonic() - start, 2), round(times[100] * 1000), round(times[-1] * 1000))
asyncio.run(main())
"""


@pytest.mark.statement("200 connections")
def test_200_parallel_connections(ann: Host, dan: Host) -> None:
    server = dan.popen(sys.executable, "-c", ECHO, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    assert server.stdout.readline() == "up\n"
    ann.forward("echo.example", dan.address)
    words = ann.python(PARALLEL, limit=120).stdout.split()
    assert words[0] == "200"
    print(f"200 connections in {words[1]} s; connect median {words[2]} ms, max {words[3]} ms")
    wait_for("the end of all flows at ann", lambda: open_flows(ann, "echo.example") == 0, 30)
    wait_for("the end of all flows at dan", lambda: open_flows(dan, "echo.example") == 0, 30)


def open_flows(host: Host, service: str) -> int:
    flows = host.ask("flows")["flows"]
    return sum(flow["service"] == service and flow["state"] not in ("TIMEWAIT", "CLOSED") for flow in flows)


RESET_SERVER = """
import socket, struct, sys
from serval_node import socket as serval
with serval.create_server("reset.example") as s:
    print("up", flush=True)
    conn, _ = s.accept(); conn.recv(10)
    conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)); conn.close()
    conn, _ = s.accept()
    try:
        while conn.recv(10): pass
        print("end", flush=True)
    except ConnectionResetError:
        print("reset", flush=True)
"""

RESET_CLIENT = """
import socket, struct
from serval_node import socket as serval
conn = serval.create_connection("reset.example", 10)
conn.sendall(b"x")
try:
    print("end" if conn.recv(10) == b"" else "data")
except ConnectionResetError:
    print("reset")
conn = serval.create_connection("reset.example", 10)
conn.sendall(b"x")
conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)); conn.close()
"""


@pytest.mark.statement("reset")
def test_reset_by_either_side(ann: Host, dan: Host) -> None:
    server = dan.popen(sys.executable, "-c", RESET_SERVER, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    assert server.stdout.readline() == "up\n"
    ann.forward("reset.example", dan.address)
    assert ann.python(RESET_CLIENT).stdout == "reset\n"
    assert server.stdout.readline() == "reset\n"
    wait_for("the end of the flows", lambda: open_flows(ann, "reset.example") == open_flows(dan, "reset.example") == 0)


CLOSE_SERVER = """
from serval_node import socket as serval
with serval.create_server("close.example") as s:
    print("up", flush=True)
    for first in (True, False):
        conn, _ = s.accept()
        if first: conn.sendall(b"bye"); conn.close()
        else:
            assert conn.recv(10) == b"hi", "data"
            assert conn.recv(10) == b"", "end"
            conn.sendall(b"late"); conn.close()
    print("done", flush=True)
"""

CLOSE_CLIENT = """
from serval_node import socket as serval
conn = serval.create_connection("close.example", 10)
print(conn.recv(10), conn.recv(10)); conn.close()
conn = serval.create_connection("close.example", 10)
conn.sendall(b"hi"); conn.shutdown(1)
print(conn.recv(10), conn.recv(10)); conn.close()
"""


@pytest.mark.statement("close orders", "half-close")
def test_both_close_orders(ann: Host, dan: Host) -> None:
    server = dan.popen(sys.executable, "-c", CLOSE_SERVER, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    assert server.stdout.readline() == "up\n"
    ann.forward("close.example", dan.address)
    assert ann.python(CLOSE_CLIENT).stdout == "b'bye' b''\nb'late' b''\n"
    assert server.stdout.readline() == "done\n"
    wait_for("the end of the flows", lambda: open_flows(ann, "close.example") == open_flows(dan, "close.example") == 0)


# -- the daemon itself


def test_sigterm_takes_sal0_and_the_socket_along(net: HostNet) -> None:
    gus = net.add("gus")
    assert gus.run("ip", "link", "show", "sal0").returncode == 0
    assert net.stop_node(gus) == 0
    assert gus.run("ip", "link", "show", "sal0", check=False).returncode == 1
    assert not (gus.run_dir / "control.sock").exists()
    lost = gus.serval("table", check=False)
    assert lost.returncode == 1
    assert len(lost.stderr.splitlines()) == 1


def test_a_second_daemon_in_a_host_is_one_clear_error(ann: Host, tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"name": "ann", "run_dir": str(ann.run_dir)}))
    done = ann.run(sys.executable, "-m", "serval_node.daemon", "--config", str(config), check=False)
    assert done.returncode == 1
    assert (
        done.stderr
        == f"servald: another servald is listening on {ann.run_dir}/control.sock: stop it, or choose another run_dir\n"
    )
    assert ann.ask("status")["name"] == "ann"


def test_listening_sockets_are_served_again_after_a_restart(net: HostNet) -> None:
    hal = net.add("hal")
    server = hal.popen(
        sys.executable,
        "-c",
        "from serval_node import socket as s\nx = s.create_server('again.example')\nprint('up', flush=True)\ninput()",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdout is not None
    assert server.stdout.readline() == "up\n"
    before = hal.rules("again.example")
    net.kill_node(hal)
    net.start_node(hal)
    assert [rule["where"] for rule in hal.rules("again.example")] == [rule["where"] for rule in before]
    server.kill()
    gone(hal, "again.example")
    net.stop_node(hal)


def test_settings_are_of_the_host_only(ann: Host) -> None:
    read = ann.run("cat", "/proc/sys/net/ipv4/conf/sal0/route_localnet", "/proc/sys/net/ipv4/conf/all/rp_filter")
    assert read.stdout.split() == ["1", "0"]
    assert not Path("/proc/sys/net/ipv4/conf/sal0").exists()
    route = ann.run("ip", "route", "show", "dev", "sal0").stdout
    assert "198.18.0.0/15" in route
    assert "congctl cubic" in route


def test_nodes_share_no_random_state(net: HostNet, ann: Host, dan: Host) -> None:
    ids = [host.ask("flow_reserve")["flow_id"] for host in (ann, dan) for _ in range(4)]
    assert len(set(ids)) == len(ids)


def test_refusals_of_the_control_socket(ann: Host) -> None:
    assert "unknown operation 'dance'" in refusal(ann, "dance")
    assert "no service" in refusal(ann, "rule_set", prefix="single", targets=[])
    assert "nothing listens on port 4" in refusal(ann, "bind", service="web.example", port=4)
    assert "not reserved" in refusal(ann, "flow_release", flow_id=1)
    assert refusal(ann, "rule_remove", prefix="never.example")
    assert refusal(ann, "rule_set", prefix="x.example", targets=[{"action": "forward"}])
    for own in (ann.address, "127.0.0.1", "198.18.0.1"):
        target = {"action": "forward", "address": own}
        assert f"FORWARD to {own}: that is this node itself" in refusal(
            ann, "rule_set", prefix="x.example", targets=[target]
        )
    assert not ann.rules("x.example")
