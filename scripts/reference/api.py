"""docs/api.md: what programs may import, from signatures and docstrings. The source is read, nothing of it is run."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import griffe

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "api.md"

_FIELD = re.compile(r"(\w[\w*, ]*?) {2,}(\S.*)")


@dataclass(frozen=True)
class Face:
    """One module and what of it is for others; `names` in the order of the page, none: its __all__."""

    module: str
    subject: str
    names: tuple[str, ...] = ()


FACES = (
    Face("serval_node.socket", "Sockets by service name"),
    Face(
        "serval_node.datagram_socket",
        "Datagrams by service name",
        ("DatagramSocket", "Sender", "datagram_socket", "NOBODY"),
    ),
    Face("serval_node.wire.serviceid", "ServiceIDs and prefixes", ("ServiceID", "Prefix")),
    Face("serval_node.wire.naming", "Names", ("Naming", "ServiceNameError")),
    Face("testbed", "Networks in a script"),
    Face("testbed.sandbox", "Sandboxes", ("inside", "enter", "run")),
    Face("testbed.network", "Running networks", ("ServalNetwork",)),
    Face("testbed.hosts", "Hosts", ("run", "EmulatedNode", "ServalHost")),
    Face("testbed.services", "Instances of services", ("Instance",)),
    Face("testbed.link.emulated", "Links", ("EmulatedLink",)),
    Face("testbed.link.shape", "What a link is asked for", ("Shape", "parse_delay", "parse_rate")),
    Face("testbed.link.planned", "Links before a start", ("check_links", "check_change")),
    Face("testbed.calibration", "Calibration", ("calibrate", "Calibration", "Quantity")),
    Face("testbed.nodes", "Asking nodes", ("ask",)),
    Face("testbed.capture", "Captures", ("Capture", "Frame", "read")),
    Face("testbed.errors", "Errors of the testbed", ("TestbedError",)),
    Face("topologies.declarations", "Declaring topologies", ("Declared", "Service", "IpRouter", "TopologyError")),
    Face("topologies.datacenter", "The datacenter", ("Datacenter",)),
    Face(
        "testbed.measure.plan", "What is measured", ("Benchmark", "Comparison", "Figure", "Reading", "Bed", "Settings")
    ),
    Face("testbed.measure.engine", "Measuring", ("Engine",)),
    Face("testbed.measure.statistics", "Statistics", ("Interval", "interval", "noise_width", "verdict")),
    Face("testbed.measure.document", "Result files", ("load",)),
    Face("testbed.measure.files", "Writing them", ("save",)),
    Face("testbed.measure.analysis", "Figures of a result file", ("outcomes", "Outcome")),
    Face(
        "testbed.experiment.specification",
        "Experiments",
        ("Experiment", "Contender", "Scene", "Parameter", "Metric", "Acceptance", "Reference"),
    ),
    Face("testbed.experiment.traffic", "What flows in an experiment", ("Stream", "Bulk", "Requests")),
    Face(
        "testbed.experiment.schedule",
        "What happens in an experiment",
        ("Event", "Action", "Condition", "SpecificationError"),
    ),
    Face("testbed.experiment.run", "What actions see of a run", ("Run", "Flowing")),
    Face("testbed.experiment.record", "What metrics see of a run", ("RunRecord",)),
    Face("testbed.experiment.command", "Running an experiment", ("main", "run")),
    Face("testbed.experiment.result", "Results of experiments", ("load", "good_runs", "failed_runs")),
    Face(
        "testbed.experiment.analysis",
        "What a result says",
        ("summaries", "comparisons", "judgements", "trust", "Summary", "Comparison", "Judgement", "Trust", "Estimate"),
    ),
    Face(
        "testbed.report.plots",
        "Pictures of experiments",
        ("TimeSeries", "Instances", "Cdf", "BlackoutPhases", "Parts", "Bars", "Curve", "Shape", "Picture"),
    ),
    Face("controllers.policies.base", "Policies", ("Policy", "Candidate", "PolicyError")),
    Face("controllers.policies.catalogue", "Policies by name", ("register", "find")),
    Face("controllers.directory", "Instances of services", ("Instance",)),
    Face(
        "controllers.api",
        "Services in a Ryu app",
        (
            "request",
            "RequestRefused",
            "EventNodeUp",
            "EventNodeDown",
            "EventServiceRegistered",
            "EventServiceUnregistered",
            "EventServiceDelayed",
        ),
    ),
    Face("serval_node.control.rules", "Rules", ("RuleSpec", "TargetSpec", "forward", "MessageError")),
)

_HEAD = """\
# API

What programs may use: sockets by name, networks as a library, topologies and policies of your own. Names that begin
with an underscore are for the module itself. This page is written by `make reference` from signatures and docstrings.
"""


def page() -> str:
    """The text of docs/api.md; raises LookupError for a name that its module has not, or that has no docstring."""
    loader = griffe.GriffeLoader(search_paths=[ROOT], allow_inspection=False)
    parts = [_HEAD, "".join(f"* [{face.module}](#{_anchor(face)}): {face.subject}\n" for face in FACES)]
    for face in FACES:
        package = face.module.partition(".")[0]
        if package not in loader.modules_collection:  # each time, `load` would parse all of it again
            loader.load(package)
        parts += _module(loader.modules_collection[face.module], face)
    return "\n".join(parts).rstrip() + "\n"


def _anchor(face: Face) -> str:
    return face.module.replace(".", "")


def _module(module: griffe.Object | griffe.Alias, face: Face) -> Iterator[str]:
    yield f"## {face.module}\n"
    yield _text(module)
    for name in face.names or [str(name) for name in module.exports or ()]:
        item = module.members.get(name)
        if isinstance(item, griffe.Alias) and not face.names:
            yield f"### {name}\n\nThe same as `{item.target_path}`, below.\n"
        elif item is None or item.is_alias:
            raise LookupError(f"{face.module} has no {name} of its own")
        else:
            yield from _member(item)


def _member(item: griffe.Object | griffe.Alias) -> Iterator[str]:
    if isinstance(item, griffe.Class):
        yield f"### class {item.name}\n"
        yield _code([_class_line(item)])
        yield _text(item)
        yield from _methods(item)
    elif isinstance(item, griffe.Function):
        yield f"### {item.name}()\n"
        yield _code([_signature(item)])
        yield _text(item)
    else:
        yield f"### {item.name}\n"
        yield _code([f"{item.name} = {item.value}"])  # type: ignore[union-attr]


def _class_line(item: griffe.Class) -> str:
    bases = ", ".join(str(base) for base in item.bases)
    made = [parameter for parameter in item.parameters if parameter.name != "self"]
    line = f"class {item.name}({bases})" if bases else f"class {item.name}"
    if not made:
        return line
    return f"{line}\n{item.name}({_parameters(made)})"


def _methods(item: griffe.Class) -> Iterator[str]:
    """Public methods and properties of the class itself; one without a word is not to be used from outside."""
    rows = []
    for name, member in item.members.items():
        if name.startswith("_") or not member.docstring:
            continue
        written = _signature(member) if isinstance(member, griffe.Function) else f"{name}: {_annotation(member)}"
        rows.append((written, member))
    for written, member in rows:
        yield f"#### {item.name}.{member.name}\n"
        yield _code([written])
        yield _text(member)


def _signature(function: griffe.Function) -> str:
    before = "async " if "async" in function.labels else ""
    made = [parameter for parameter in function.parameters if parameter.name not in ("self", "cls")]
    returns = "" if function.returns is None else f" -> {function.returns}"
    return f"{before}{function.name}({_parameters(made)}){returns}"


def _parameters(parameters: Sequence[griffe.Parameter]) -> str:
    written: list[str] = []
    starred = False
    for parameter in parameters:
        kind = parameter.kind or griffe.ParameterKind.positional_or_keyword
        if kind is griffe.ParameterKind.var_positional:
            starred = True
        if kind is griffe.ParameterKind.keyword_only and not starred:
            written.append("*")
            starred = True
        stars = {griffe.ParameterKind.var_positional: "*", griffe.ParameterKind.var_keyword: "**"}.get(kind, "")
        annotation = "" if parameter.annotation is None else f": {parameter.annotation}"
        equals = " = " if annotation else "="
        default = "" if stars or parameter.default is None else f"{equals}{parameter.default}"
        written.append(f"{stars}{parameter.name}{annotation}{default}")
    return ", ".join(written)


def _annotation(member: griffe.Object | griffe.Alias) -> str:
    return str(getattr(member, "annotation", None) or "")


def _code(lines: Sequence[str]) -> str:
    return "```text\n" + "\n".join(lines) + "\n```\n"


def _text(item: griffe.Object | griffe.Alias) -> str:
    """The docstring as Markdown. Raises LookupError without one."""
    if item.docstring is None:
        raise LookupError(f"{item.path} is public and has no docstring")
    return markdown(inspect.cleandoc(item.docstring.value)) + "\n"


def markdown(text: str) -> str:
    """A docstring's text: lists of "name   meaning" become lists, and what is indented stands between fences."""
    out: list[str] = []
    code: list[str] = []
    for paragraph in [part.splitlines() for part in re.split(r"\n\s*\n", text)]:
        if all(line.startswith("  ") for line in paragraph):
            code += ["", *paragraph] if code else paragraph
            continue
        if code:
            out.append(_fenced(code))
            code = []
        if _FIELD.match(paragraph[0]):
            out.append(_list(paragraph))
            continue
        first = next((at for at, line in enumerate(paragraph) if line.startswith("  ")), len(paragraph))
        if paragraph[0].startswith("* "):
            first = len(paragraph)  # what goes on below a point of a list is indented too
        out.append("\n".join(paragraph[:first]))
        code = paragraph[first:]
    return "\n\n".join([*out, *([_fenced(code)] if code else [])])


def _fenced(lines: Sequence[str]) -> str:
    return "```text\n" + textwrap.dedent("\n".join(lines)) + "\n```"


def _list(lines: Sequence[str]) -> str:
    points: list[str] = []
    for line in lines:
        if field := _FIELD.match(line):
            points.append(f"* `{field[1].strip()}`: {field[2]}")
        else:
            points.append(f"  {line.strip()}")
    return "\n".join(points)
