"""Benchmarks: each prints one JSON object with hardware, versions, results and goals, and keeps it in a folder."""
