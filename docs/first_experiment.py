"""How long does a stream wait when its link is down for a moment? Serval beside plain TCP."""

from testbed.experiment.actions import LinkDown, LinkUp
from testbed.experiment.command import main
from testbed.experiment.schedule import Event
from testbed.experiment.specification import LOWER, TCP, Acceptance, Contender, Experiment, Metric, Parameter, Scene
from testbed.experiment.traffic import Stream


def scene(values, contender):
    down, up = values["down"], values["down"] + values["pause"]
    return Scene(
        topology="two-hosts",
        options={"rate": 100, "delay": "2ms"},
        traffic=(Stream(name="flow", source="ann", target="dan", service="flow.example", rate=10),),
        events=(Event(action=LinkDown("ann", "eth0"), at=down), Event(action=LinkUp("ann", "eth0"), at=up)),
        seconds=up + 2.0,
        calibrate=(("ann", "dan"),),
    )


EXPERIMENT = Experiment(
    name="first_experiment",
    title="A link that is down for a moment",
    description="The only way between client and server goes and comes back. Both wait for TCP to try again.",
    source="docs/experiments.md",
    statements=(),
    contenders=(Contender(name="serval", label="Serval"), Contender(name="tcp", label="plain TCP", transport=TCP)),
    scene=scene,
    parameters={
        "down": Parameter(2.0, "s", "when the link goes down", low=0.1, high=60, quick=0.4),
        "pause": Parameter(0.3, "s", "how long it stays down", low=0.1, high=10, quick=0.2),
    },
    metrics=(
        Metric(
            name="gap",
            label="longest silence",
            compute=lambda run: run.largest_gap("flow", run.event("goes down") - 0.1),
            unit="ms",
            scale=1e3,
            better=LOWER,
            matters=50.0,
        ),
    ),
    acceptance=(Acceptance(text="data flows again", metric="gap", contender="serval", at_most=2000.0),),
)

if __name__ == "__main__":
    main(EXPERIMENT)
