"""The addresses that a collector listens on."""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class ListenAddress:
    """A host name or address, and a port from 0 (any free one) to 65535."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> ListenAddress:
        """Read `HOST:PORT` or `[IPV6]:PORT`; raises ValueError."""
        host, separator, port = text.rpartition(":")
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
        elif ":" in host:
            host = ""
        decimal = port.isascii() and port.isdigit() and len(port) <= 5
        if not separator or not host or not decimal or int(port) > 65_535:
            raise ValueError(f"expected HOST:PORT with a port from 0 to 65535, got {text!r}")
        return cls(host, int(port))

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def is_free(address: ListenAddress) -> bool:
    """Whether a server could listen there now."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        socket.create_server((address.host, address.port), family=family).close()
    except OSError:
        return False
    return True


class AddressError(OSError):
    """Another process listens there, or the address is not one of this machine."""

    def __init__(
        self, protocol: Literal["grpc", "http", "otlp_http"], address: ListenAddress
    ) -> None:
        super().__init__(f"cannot listen on {address}: in use already, or not of this machine")
        self.protocol = protocol
