"""TLS for the gRPC side of a collector."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import grpc


@dataclass(frozen=True)
class TlsFiles:
    """PEM files: the collector's certificate chain, its key, and who may sign its producers'.

    With `client_authority`, a producer must show a certificate of that authority (mutual TLS).
    """

    certificate: Path
    key: Path
    client_authority: Path | None = None

    def credentials(self) -> grpc.ServerCredentials:
        """What gRPC takes; raises OSError for a file that cannot be read."""
        authority = self.client_authority.read_bytes() if self.client_authority else None
        pair = (self.key.read_bytes(), self.certificate.read_bytes())
        return grpc.ssl_server_credentials([pair], authority, authority is not None)
