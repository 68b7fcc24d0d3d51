"""OTLP as the SDK and the collector both know it: our spans as its bytes, what its answers say."""
