"""Use cases: one file each, a frozen dataclass that is called with plain values."""
