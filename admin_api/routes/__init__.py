"""Thin routes: decode, one use case or one read, encode."""
