"""The process that holds a Ray cluster of this machine alone.

`python -m flasc_sim.ray_head WORKERS` writes the cluster's address, and ends when its standard
input does.
"""

from __future__ import annotations

import sys

import ray


def main() -> None:
    """Hold a cluster of as many CPUs as the first argument says."""
    with ray.init(num_cpus=int(sys.argv[1]), include_dashboard=False, log_to_driver=False):
        print(ray.get_runtime_context().gcs_address, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
