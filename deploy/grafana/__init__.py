"""Grafana's dashboards: `python -m deploy.grafana.build` writes them into `dashboards/`.

Promise: each panel says what it shows, in which unit, and from which value on it is not well; each query
puts replicas together as the metric's definition says, and is of the chosen deployments. What is
committed is what this writes: change it here, never in a file.
"""
