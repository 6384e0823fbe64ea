"""`testbed mn` without a network: its arguments, what it refuses, who becomes the service router, and the script."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest

import testbed
from testbed import cli, mn, nodes, sandbox
from testbed.errors import TestbedError
from testbed.mn_parts import MININETS_ONLY, CheckedInterface, ShapedLink
from testbed.mn_prompt import service_started

PAGE = sandbox.ROOT / "docs" / "mininet.md"
SCRIPT = sandbox.ROOT / "docs" / "hello.py"
LONGEST_SCRIPT = 30


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The command lines that would have been run in a sandbox."""
    found: list[list[str]] = []

    def run(argv: list[str], *, name: str, **_options: Any) -> int:
        assert name == "mn"
        found.append(argv)
        return 0

    monkeypatch.setattr(sandbox, "run", run)
    return found


@pytest.mark.parametrize(
    "words",
    [[], ["--topo", "single,3"], ["--host", "serval", "--", "--pre"], ["-c"], ["--custom", "a.py", "--help"]],
)
@pytest.mark.parametrize("dashes", [["--"], []])
def test_all_words_are_mns_with_and_without_dashes(ran: list[list[str]], words: list[str], dashes: list[str]) -> None:
    assert cli.main(["mn", *dashes, *words]) == 0
    (argv,) = ran
    assert argv[argv.index("launch-mn") :] == ["launch-mn", "--", *words]


def test_help_and_version_of_mn_need_no_sandbox(ran: list[list[str]], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["mn", "--", "--help"]) == 0
    shown = capsys.readouterr().out
    assert "--custom" in shown
    assert "serval=MnServalHost" in "".join(shown.split())
    assert cli.main(["mn", "--", "--version"]) == 0
    assert not ran


def test_networks_are_refused_outside_a_sandbox(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sandbox, "inside", lambda: False)
    assert cli.main(["launch-mn", "--", "--test", "none"]) == 1
    assert "testbed mn -- OPTIONS OF MN" in capsys.readouterr().err


def refused(*arguments: str) -> str:
    """What is said to these arguments, parsed by mn itself."""
    loaded = mn._load()
    mn._extend(loaded)
    runner = loaded.MininetRunner.__new__(loaded.MininetRunner)  # type: ignore[attr-defined]
    sys.argv, before = ["mn", *arguments], sys.argv
    try:
        runner.parseArgs()
    finally:
        sys.argv = before
    with pytest.raises(TestbedError) as caught:
        mn.refuse(runner.options)
        mn.check_choices(loaded, runner.options)
    return str(caught.value)


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("-c", "ends processes by name"),
        ("--clean", "goes with its sandbox"),
        ("--cle", "ends processes by name"),  # mn takes abbreviations
        ("--nat", "no link to the outside"),
        ("--cluster=a,b", "no link to the outside"),
    ],
)
def test_what_cannot_work_in_a_sandbox_is_refused(argument: str, said: str) -> None:
    assert said in refused(argument)


@pytest.mark.parametrize(
    ("arguments", "said", "choice"),
    [
        (["--host", "nosuch"], "mn --host: there is no 'nosuch'", "serval"),
        (["--host", "servall,router=h3"], "mn --host: there is no 'servall'; did you mean serval?", "serval"),
        (["--link", "nosuch"], "mn --link: there is no 'nosuch'", "tcu"),
        (["--switch", "nosuch"], "mn --switch: there is no 'nosuch'", "ovsbr"),
        (["--controller", "none", "--controller", "nosuch"], "mn --controller: there is no 'nosuch'", "remote"),
        (["--topo", "singel,3"], "mn --topo: there is no 'singel'; did you mean single?", "single"),
    ],
)
def test_a_name_that_mn_does_not_have_is_answered_by_those_it_has(arguments: list[str], said: str, choice: str) -> None:
    message, names = refused(*arguments).splitlines()
    assert message == said
    assert choice in names.strip().removeprefix("there are: ").split(", ")


@pytest.mark.parametrize(
    ("command", "said", "reason"),
    [
        ("%s qdisc add dev %s root handle 10: netem delay 10ms", "Error: Specified qdisc kind is unknown.\n", "qdisc"),
        ("%s class add dev %s parent 5: classid 5:1 htb", "RTNETLINK answers: Operation not permitted\n", "permitted"),
        ("%s class add dev %s parent 5: classid 5:1 htb", "Warning: sch_htb: quantum of class 50001 is big.\n", None),
        ("%s qdisc add dev %s root handle 5:0 htb default 1", "", None),
        ("%s qdisc del dev %s root", "Error: Cannot delete qdisc with handle of zero.\n", None),
        ("%s qdisc show dev %s", "qdisc noqueue 0: root refcnt 2\n", None),
    ],
)
def test_a_link_of_mininets_own_ends_the_run_where_tc_fails(command: str, said: str, reason: str | None) -> None:
    interface = CheckedInterface.__new__(CheckedInterface)
    interface.name, interface.node = "h1-eth0", SimpleNamespace(cmd=lambda line: said)
    if reason is None:
        assert interface.tc(command) == said
    else:
        with pytest.raises(TestbedError, match=f"link at h1-eth0: tc: .*{reason}.*\n.*--link tc "):
            interface.tc(command)


@pytest.mark.parametrize(
    ("display", "xterm", "said"),
    [
        ("", None, "DISPLAY is not set"),
        ("localhost:10.0", "/usr/bin/xterm", "over the network"),
        (":0", None, "program xterm"),
    ],
)
def test_terminals_need_a_local_display_and_their_program(
    monkeypatch: pytest.MonkeyPatch, display: str, xterm: str | None, said: str
) -> None:
    monkeypatch.setenv("DISPLAY", display)
    monkeypatch.setattr(mn.shutil, "which", lambda name: xterm)
    assert said in refused("-x")


def test_a_shaped_link_refuses_what_it_would_ignore() -> None:
    with pytest.raises(TestbedError, match=r"link a-b: .*not use_hfsc\n.*tcu"):
        ShapedLink("a", "b", bw=10, use_hfsc=True, jitter="1ms")  # type: ignore[arg-type]
    assert not MININETS_ONLY & {"bw", "delay", "jitter", "loss", "max_queue_size"}


@pytest.mark.parametrize(
    ("line", "service"),
    [
        ("h1 serval bind web.example &", "web.example"),
        ("h1 serval bind --answer hello web.example &", "web.example"),
        ("h1 serval bind web.example --answer hello &", "web.example"),
        ("h1 serval bind web.example", None),
        ("h1 serval run --service web.example -- python3 -m http.server &", "web.example"),
        ("h1 serval run &", None),
        ("h1 serval connect web.example &", None),
        ("h1 sleep 10 &", None),
        ("&", None),
        ("", None),
    ],
)
def test_lines_that_start_a_service(line: str, service: str | None) -> None:
    assert service_started(line.split()) == service


def hosts(**options: dict[str, Any]) -> list[Any]:
    found = []
    for name, option in options.items():
        params = {"serval": option}
        found.append(SimpleNamespace(name=name, params=params, options=option))
    return found


def test_the_first_host_is_the_router_of_all_names_where_none_is_declared() -> None:
    first, second = hosts(a={"role": "host"}, b={"role": "host"})
    assert nodes.appoint_router([first, second]) is first
    assert first.params["serval"] == {"role": "router", "serves": [nodes.EVERYTHING]}
    assert second.params["serval"] == {"role": "host"}
    assert nodes.appoint_router([]) is None


def test_a_declared_router_stays_and_a_wanted_one_is_found() -> None:
    declared = {"role": "router", "serves": ["example"]}
    members = hosts(a={"role": "host"}, b=declared)
    assert nodes.appoint_router(members) is None
    assert members[1].params["serval"] is declared
    assert nodes.appoint_router(members, "a") is members[0]
    with pytest.raises(TestbedError, match="no Serval host 'c'; there are: a, b"):
        nodes.appoint_router(members, "c")


def test_the_script_on_the_page_is_the_one_that_runs_and_short() -> None:
    script = SCRIPT.read_text()
    assert f"```python\n{script}```\n" in PAGE.read_text()
    assert len(script.splitlines()) <= LONGEST_SCRIPT


def test_what_a_script_needs_is_in_the_package_itself() -> None:
    for name in testbed.__all__:
        assert getattr(testbed, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        testbed.nonsense  # type: ignore[attr-defined]  # noqa: B018 - reading it is the test
