"""The benchmarks: python -m experiments.benchmarks. docs/benchmarks.md describes them."""
