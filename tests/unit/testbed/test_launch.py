"""What the user types after `testbed run`: options of the topology, and what is wrong said in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from testbed import failures, launch, topology_options
from testbed.network import ServalNetwork
from topologies.datacenter import Datacenter


def test_a_topologys_parameters_are_options() -> None:
    parser = launch._parser("datacenter", Datacenter)
    options = parser.parse_args(["--racks", "3", "--rate", "12.5", "--delay", "7ms", "--wan-rate", "20"])
    given = topology_options.parameters(Datacenter, options)
    assert given == {"racks": 3, "rate": 12.5, "delay": "7ms", "wan_rate": 20}
    assert options.hosts is None
    assert options.capture is None
    assert parser.parse_args(["--capture"]).capture == ""


def test_every_parameter_of_a_topology_is_explained() -> None:
    names = Datacenter.build.__code__.co_varnames[1 : Datacenter.build.__code__.co_argcount]
    assert tuple(Datacenter.parameters) == names


def test_apps_for_the_switches_are_found_from_where_the_user_is() -> None:
    """The controller runs elsewhere; modules have no directory."""
    options = launch._parser("datacenter", Datacenter).parse_args(
        ["--app", "mine.py", "--app", "os_ken.topology.switches"]
    )
    assert launch._apps(options.app) == ["--app", str(Path("mine.py").absolute()), "--app", "os_ken.topology.switches"]


def test_the_fabric_can_be_kept_beside_an_app() -> None:
    options = launch._parser("datacenter", Datacenter).parse_args(["--app", "mine", "--fabric"])
    assert launch._apps(options.app, fabric=options.fabric) == ["--app", "mine", "--apps", "fabric,service"]


@pytest.mark.parametrize(
    ("topology", "arguments", "complaint"),
    [
        ("datacentre", [], "no topology 'datacentre'"),
        ("datacenter", ["--racks", "0"], "racks must be"),
        ("datacenter", ["--racks", "many"], "--racks: 'many' is no number"),
        ("datacenter", ["--rate", "fast"], "--rate: 'fast' is no number"),
        ("datacenter", ["--rate", "0"], "rate must be from 0.01"),
        ("datacenter", ["--wan-rate", "nan"], "link r1-r2: a link's rate"),
        ("datacenter", ["--rate", "-5"], "rate must be from 0.01"),
        ("datacenter", ["--loss", "101"], "loss must be from 0 to 100"),
        ("datacenter", ["--loss", "-1"], "loss must be from 0 to 100"),
        ("datacenter", ["--delay", "100s"], "link r1-r2: a link's delay must be from 0 to 10 s, not 100 s"),
        ("datacenter", ["--hosts", "1000"], "hosts must be a whole number from 1 to 250, not 1000"),
    ],
)
def test_wrong_words_end_in_one_clear_line(
    topology: str, arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert launch.run(topology, arguments) == 2
    shown = capsys.readouterr().err
    assert complaint in shown
    assert len(shown.splitlines()) == 1


@pytest.mark.parametrize("delay", ["banana", "5", "-5ms"])
def test_a_wrong_delay_says_how_delays_are_written(delay: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert launch.run("datacenter", ["--delay", delay]) == 2
    assert capsys.readouterr().err.splitlines() == [
        f"testbed: datacenter: link r1-r2: {delay!r} is no delay",
        "  write a number and its unit: 250us, 5ms, 0.1s",
    ]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--bogus"], "unrecognized arguments: --bogus"),
        (["--racks", "1", "--hots", "3"], "unrecognized arguments: --hots 3; did you mean --hosts?"),
        (["--rack", "1"], "unrecognized arguments: --rack 1; did you mean --racks?"),
        (["--rack=1"], "unrecognized arguments: --rack=1; did you mean --racks?"),
        (["--capt"], "unrecognized arguments: --capt; did you mean --capture?"),
        (["extra"], "unrecognized arguments: extra"),
        (["--seed", "x"], "argument --seed: invalid int value: 'x'"),
        (["--snap", "-1"], "argument --snap: '-1' is no number of bytes from 0 on"),
    ],
)
def test_an_unknown_option_is_named_and_the_way_to_all_options(
    arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        launch.run("datacenter", arguments)
    assert ended.value.code == 2
    assert capsys.readouterr().err == (
        f"testbed: datacenter: {complaint}\n  all options: testbed run datacenter --help\n"
    )


@pytest.mark.parametrize(
    ("text", "complaint"),
    [(None, "No such file or directory"), ("def broken(:", "is no Python: "), ("x = '\\0", "is no Python: ")],
)
def test_a_wrong_app_is_noticed_before_anything_is_started(
    text: str | None, complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    app = tmp_path / "mine.py"
    if text is not None:
        app.write_text(text)
    assert launch.run("datacenter", ["--app", str(app)]) == 2
    shown = capsys.readouterr().err
    assert shown.startswith(f"testbed: datacenter: --app {app}")
    assert complaint in shown


@pytest.mark.parametrize("captured", [False, True])
def test_a_start_that_is_interrupted_leaves_no_empty_directory(
    captured: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = ServalNetwork.__new__(ServalNetwork)  # a real one is built in a sandbox only
    net.instances = []
    net._undo = []
    options = launch._parser("datacenter", Datacenter).parse_args(["--capture"])
    monkeypatch.setattr(launch, "RESULTS", tmp_path / "results")
    directory = launch._Run("datacenter", net, options)._capture_directory()
    assert directory.is_dir()
    if captured:
        (directory / "ann-eth0.pcap").write_text("frames")
    assert net.stop()
    assert directory.exists() is captured
    assert (tmp_path / "results").exists() is captured


def test_a_directory_that_was_there_before_stays(tmp_path: Path) -> None:
    net = ServalNetwork.__new__(ServalNetwork)
    net.instances = []
    net._undo = []
    options = launch._parser("datacenter", Datacenter).parse_args(["--capture", str(tmp_path)])
    launch._Run("datacenter", net, options)._capture_directory()
    assert net.stop()
    assert tmp_path.is_dir()


def test_logs_of_a_failed_run_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "run" / "hosts" / "dan").mkdir(parents=True)
    (tmp_path / "run" / "hosts" / "dan" / "servald.log").write_text("said")
    monkeypatch.setattr(failures, "LOGS", tmp_path / "run")
    monkeypatch.setattr(failures, "RESULTS", tmp_path / "results")
    assert "were kept in" in launch.keep_logs("datacenter").message
    (kept,) = (tmp_path / "results").glob("failed-datacenter-*/hosts/dan/servald.log")
    assert kept.read_text() == "said"


def test_logs_that_cannot_be_kept_are_no_second_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "a.log").write_text("said")
    monkeypatch.setattr(failures, "LOGS", tmp_path)
    monkeypatch.setattr(failures, "RESULTS", tmp_path / "file" / "results")
    monkeypatch.setattr(failures.tempfile, "gettempdir", lambda: str(tmp_path / "file" / "tmp"))
    assert "could not be kept" in launch.keep_logs("datacenter").message


def test_what_fails_at_the_stop_shows_in_the_status(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    net = ServalNetwork.__new__(ServalNetwork)  # a real one is built in a sandbox only
    net.instances = []
    net._undo = []
    net.undo_at_stop("the capture", (Path("/nowhere") / "at all").read_text)
    monkeypatch.setattr(launch, "_prepare_process", lambda: None)
    monkeypatch.setattr(launch, "ServalNetwork", lambda *_, **__: net)
    monkeypatch.setattr(launch._Run, "go", lambda run: 0)
    monkeypatch.setattr(launch.signal, "signal", lambda number, action: None)
    assert launch.run("datacenter", []) == 1
    assert "while stopping the capture" in capsys.readouterr().err
