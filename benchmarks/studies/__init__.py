"""Experiments of hours: resumable, each run with a result of its own."""
