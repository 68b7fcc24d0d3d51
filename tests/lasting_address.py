"""An address that a restarted server can take again."""

from __future__ import annotations

import random
import socket
from contextlib import suppress

# Below the ports of outgoing connections, which may occupy a port before a killed server listens
# on it again.
PORTS = range(20_000, 32_000)


def lasting_address() -> str:
    """A free one on loopback."""
    while True:
        port = random.SystemRandom().choice(PORTS)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return f"127.0.0.1:{port}"
