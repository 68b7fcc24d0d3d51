"""TLS for all that a collector listens on."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import grpc

TlsFile = Literal["certificate", "key", "client_authority"]


class TlsFileError(ValueError):
    """A file of TLS cannot be read or has the wrong content; `file` says which."""

    def __init__(self, file: TlsFile, reason: object) -> None:
        super().__init__(str(reason))
        self.file = file


@dataclass(frozen=True)
class TlsFiles:
    """PEM files: the collector's certificate chain, its key, and who may sign its producers'.

    With `client_authority`, a producer must show a certificate of that authority (mutual TLS).
    """

    certificate: Path
    key: Path
    client_authority: Path | None = None

    def credentials(self) -> grpc.ServerCredentials:
        """The credentials for the gRPC server; raises TlsFileError."""
        authority = None if self.client_authority is None else self._read("client_authority")
        pair = (self._read("key"), self._read("certificate"))
        self._context(authority)
        return grpc.ssl_server_credentials([pair], authority, authority is not None)

    def context(self) -> ssl.SSLContext:
        """The context for an HTTP server; raises TlsFileError."""
        authority = None if self.client_authority is None else self._read("client_authority")
        self._read("key")
        self._read("certificate")
        context = self._context(authority)
        context.set_alpn_protocols(["http/1.1"])
        return context

    def _read(self, file: TlsFile) -> bytes:
        try:
            return bytes(getattr(self, file).read_bytes())
        except OSError as error:
            raise TlsFileError(file, error) from error

    def _context(self, authority: bytes | None) -> ssl.SSLContext:
        """For gRPC, it validates: gRPC takes bad files, and then cannot listen without a reason."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            # Given no password, OpenSSL would ask for one at the terminal.
            context.load_cert_chain(self.certificate, self.key, password="")
        except (ssl.SSLError, ValueError):
            raise TlsFileError(
                "certificate",
                f"expected a PEM certificate chain, and in {self.key} its key without a password; "
                f"{self.certificate} is not, or not of that key",
            ) from None
        try:
            if authority is not None:
                context.load_verify_locations(cadata=authority.decode())
                context.verify_mode = ssl.CERT_REQUIRED
        except (ssl.SSLError, ValueError):
            reason = f"expected PEM certificates, which {self.client_authority} does not hold"
            raise TlsFileError("client_authority", reason) from None
        return context
