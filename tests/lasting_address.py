"""An address to come back to."""

from __future__ import annotations

import random
import socket
from contextlib import suppress

# Below the ports of outgoing connections: one of those may be taken when a server that was
# killed is to listen on it again.
PORTS = range(20_000, 32_000)


def lasting_address() -> str:
    """A free one on loopback."""
    while True:
        port = random.SystemRandom().choice(PORTS)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return f"127.0.0.1:{port}"
