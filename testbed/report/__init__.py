"""Plots and pages of an experiment, made from its result file alone: years later, elsewhere, without its code.

plots       what pictures there are, as data; experiments declare them
draw        makes them with matplotlib, in the looks of `style`
view        a result as pictures and pages see it
page        the report, one HTML file, and the index of several; `sections`: what its tables hold
deviation   how far a result is from its slide, in words
command     `testbed plots`, `testbed report`; `find`: the newest results
reproduce   `testbed reproduce slide46`
"""
