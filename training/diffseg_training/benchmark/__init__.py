"""Benchmarks on labelled CT: the papers' tables, and few-slice methods inside volumes."""
