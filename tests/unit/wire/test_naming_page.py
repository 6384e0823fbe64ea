"""docs/naming.md is right: its table of text forms, and the bytes in its picture, are computed again."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from serval_node.wire.naming import Naming
from serval_node.wire.serviceid import Prefix

PAGE = (Path(__file__).parents[3] / "docs" / "naming.md").read_text()
FORMS = re.findall(r"^\| `([^`]+)` \|[^|]*\| `(0x[^`]+)` \|$", PAGE, re.MULTILINE)


@pytest.fixture
def names() -> Naming:
    return Naming({"example": 0x5E1F00})


def test_the_table_is_found() -> None:
    assert len(FORMS) == 11


@pytest.mark.parametrize(("text", "prefix"), FORMS)
def test_text_forms(names: Naming, text: str, prefix: str) -> None:
    assert str(names.parse(text)) == prefix and names.parse(text) == Prefix.from_text(prefix)


def test_the_picture(names: Naming) -> None:
    (line,) = re.findall(r"5e 1f 00 .*", PAGE)
    assert bytes.fromhex(line.replace("...", "")) == names.service_id("web.example", 80).raw[:16]
