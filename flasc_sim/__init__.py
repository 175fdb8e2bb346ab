"""Real models and data sets for many devices on one machine: the demo's and the simulator's."""
