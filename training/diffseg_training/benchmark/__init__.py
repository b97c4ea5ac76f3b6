"""Benchmarks on labelled CT: the papers' tables, and the arena of few-slice methods."""
