"""The persistent aggregator: rounds in a database, devices over gRPC."""
