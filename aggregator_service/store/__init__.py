"""Where rounds and updates are kept: every SQL statement and every blob."""
