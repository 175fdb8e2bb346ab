"""The `flasc` command: for operators, for developers, and for a first look."""
