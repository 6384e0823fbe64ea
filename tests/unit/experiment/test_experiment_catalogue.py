"""Experiments are found by their modules, and each calls itself as its module is called."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed import sandbox
from testbed.errors import TestbedError
from testbed.experiment import catalogue

MODULE = """
from testbed.experiment.specification import Contender, Experiment

def scene(values, contender):
    raise NotImplementedError

EXPERIMENT = Experiment(name={name!r}, title="", description="", source="slide 46", statements=(), contenders=(),
                        scene=scene, metrics=())
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    place = tmp_path / "trials_of_catalogue"
    place.mkdir()
    (place / "__init__.py").write_text("")
    (place / "sliding.py").write_text(MODULE.format(name="sliding"))
    (place / "misnamed.py").write_text(MODULE.format(name="named"))
    (place / "helper.py").write_text("raise SystemExit('loaded although it is no experiment')\nEXPERIMENTS = 3\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield place.name
    for name in [name for name in sys.modules if name.startswith(place.name)]:
        del sys.modules[name]


def test_modules_with_an_experiment_are_found(package: str) -> None:
    assert catalogue.names(package) == ["misnamed", "sliding"]
    assert catalogue.load("sliding", package).source == "slide 46"


def test_an_unknown_one_is_refused_with_those_that_there_are(package: str) -> None:
    with pytest.raises(TestbedError, match=r"no experiment 'slidin'; did you mean sliding\?\n.*misnamed, sliding"):
        catalogue.load("slidin", package)
    with pytest.raises(TestbedError, match="there are: none"):
        catalogue.load("x", "no_such_package_of_experiments")


def test_a_wrong_name_is_refused(package: str) -> None:
    with pytest.raises(TestbedError, match=r"misnamed\.py calls itself 'named'"):
        catalogue.every(package)


def test_ours_load() -> None:
    assert [experiment.name for experiment in catalogue.every()] == catalogue.names()


def test_make_says_where_experiments_are_listed_when_it_is_asked_for_another() -> None:
    made = subprocess.run(
        ["make", "-o", "setup", "experiment-slidin"],
        cwd=sandbox.ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert made.returncode == 2 and "no such experiment; .venv/bin/testbed experiments lists them" in made.stdout
