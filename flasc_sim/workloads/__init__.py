"""Workloads by name, one module each; `flasc_sim.workload` finds them."""
