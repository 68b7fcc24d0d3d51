"""Takes batches of spans in over gRPC."""
