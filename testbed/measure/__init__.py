"""Measuring in pairs: what benchmarks and experiments share. docs/benchmarks.md says how to read the results.

plan         what is measured: variants, comparisons, figures; the order of the pairs
statistics   medians, exact intervals, noise, verdicts
machine      how busy the machine was, with what of it was ours
ending       how a measurement that is told to end does so
engine       runs the pairs, repeats the void ones, keeps what was measured
files        result files on disk: each run's directory, saving, loading
document     the result file of benchmarks
analysis     from the result file to figures
table, plot  figures as text and as pictures
bounce       the calibration: a tunnel in the plainest Python
"""
