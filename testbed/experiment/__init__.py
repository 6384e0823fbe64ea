"""Experiments as data, and the engine that runs them.

specification   what an experiment is: scene, contenders, metrics, acceptance, plots
schedule        what happens in it, and when
traffic         what flows in it
record          what one run left behind, as metrics see it
plan            which runs there are, in which order, with which seeds, and how long they take
result          the result file
analysis        from the result file to medians, verdicts and acceptance; summary: all of it as text

All of these are pure: an experiment loads and is checked without root and without Mininet running.

command         the command line of an experiment; describe: an experiment and a plan in words
runner          all runs of a plan, failed ones again; progress: what is said meanwhile
live            one run on a network of its own; conduct: its schedule, observe: what its network says
calibrate       whether the links do what they are asked, before the first run
fidelity        how far the machine can have spoilt a run
export          a result as CSV or JSON (python -m testbed.experiment)
"""
