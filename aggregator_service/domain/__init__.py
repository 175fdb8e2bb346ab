"""Tasks, rounds, assignments, updates and devices as values and rules; the time is an argument."""
