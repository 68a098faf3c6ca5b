"""How fast it is: each question in a file of its own, measured beside its ceilings and its peers.

`make bench` runs all of them, `make bench ARGS="dispatch latency"` some. Results are JSON files in
`benchmarks/results`; `docs/benchmarks.md` is rendered from them alone.
"""
