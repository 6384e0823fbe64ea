"""Plots and pages of an experiment, made from its result file alone: years later, elsewhere, without its code.

plots     what pictures there are, as data; experiments declare them
draw      makes them with matplotlib
text      the summary
page      the report, one HTML file, and the index of several
command   `testbed plots`, `testbed report`
"""
