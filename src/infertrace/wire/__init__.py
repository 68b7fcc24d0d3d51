"""What the SDK and the collector both know of bytes on the wire."""
