"""A TCP proxy between two real ends, which counts bytes, is slow, or goes silent."""

from __future__ import annotations

import contextlib
import socket
import threading
import time

_SLOW_PIECE_BYTES = 64


class TcpProxy:
    def __init__(self, target_port: int) -> None:
        self.sent_bytes = 0
        """What came from the clients so far."""
        self.connections = 0
        self.bytes_per_s: float | None = None
        """How much of what the clients send it passes on, for each connection; None for all."""
        self._silent: set[socket.socket] = set()
        self._target = ("127.0.0.1", target_port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def endpoint(self) -> str:
        return f"127.0.0.1:{self._listener.getsockname()[1]}"

    def go_silent(self) -> None:
        """Pass nothing more on the open connections, and close none; new ones work."""
        for pair in self._pairs:
            self._silent.update(pair)

    def reset(self) -> None:
        """Break the open connections with a RST."""
        for pair in self._pairs:
            for end in pair:
                with contextlib.suppress(OSError):
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, bytes((1, 0, 0, 0)) * 2)
                    end.shutdown(socket.SHUT_RDWR)
                    end.close()

    def stop(self) -> None:
        self._listener.close()
        self.reset()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self.connections += 1
                server = socket.create_connection(self._target)
                self._pairs.append((client, server))
                for source, sink in ((client, server), (server, client)):
                    threading.Thread(target=self._pass, args=(source, sink), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket) -> None:
        from_client = any(source is client for client, _ in self._pairs)
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if source in self._silent:
                    continue
                if from_client:
                    self.sent_bytes += len(data)
                    data = self._pass_slowly(data, sink)
                sink.sendall(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    def _pass_slowly(self, data: bytes, sink: socket.socket) -> bytes:
        """Pass data on slowly; returns the rest once there is no limit any more."""
        while data and self.bytes_per_s:
            sink.sendall(data[:_SLOW_PIECE_BYTES])
            time.sleep(len(data[:_SLOW_PIECE_BYTES]) / self.bytes_per_s)
            data = data[_SLOW_PIECE_BYTES:]
        return data
