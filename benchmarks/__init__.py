"""Measures wshub beside other ways to do the same: `python -m benchmarks`, or `make bench`."""
