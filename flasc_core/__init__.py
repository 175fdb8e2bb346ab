"""Sparse federated LoRA without I/O: layouts, selection, wire format, exact sums, optimizers."""
