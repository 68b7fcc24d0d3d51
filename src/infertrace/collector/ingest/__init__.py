"""Receives batches of spans over gRPC, decodes them and hands them to the store."""
