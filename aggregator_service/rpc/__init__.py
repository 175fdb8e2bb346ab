"""The gRPC edge: decode, call one use case, encode."""
