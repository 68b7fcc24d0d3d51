"""A request to the sender process and its answer, by both backends' own way over the socket."""

from __future__ import annotations

import random
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from infertrace.exporting.process_transport import ANSWER, ANSWER_SIZE_AT, ProcessTransport


@pytest.fixture
def sender() -> None:
    """No exporter runs here."""


Exchange = Callable[[tuple[bytes, ...], float], bytes]


@pytest.fixture
def ends(backend: Any) -> Iterator[tuple[Exchange, socket.socket]]:
    """The way to the other end of a socket, and that end."""
    ours, theirs = socket.socketpair()
    transport = ProcessTransport.__new__(ProcessTransport)
    transport._socket = ours
    transport._meanwhile = lambda: False
    way = backend.exchange or transport._exchange_in_python

    def exchange(parts: tuple[bytes, ...], timeout_s: float = 30) -> bytes:
        answer: bytes = way(ours.fileno(), parts, ANSWER.size, ANSWER_SIZE_AT, timeout_s)
        return answer

    with ours, theirs:
        yield exchange, theirs


def answer_of(text: bytes) -> bytes:
    return ANSWER.pack(0, 1, 2, 0.5, len(text)) + text


@pytest.mark.parametrize("size", [0, 1, 300_000, 4 * 1024 * 1024])
def test_parts_of_any_size(ends: Any, size: int) -> None:
    exchange, theirs = ends
    payload = random.Random(size).randbytes(size)
    received = []

    def answer() -> None:
        received.append(theirs.recv(size + 6, socket.MSG_WAITALL))
        theirs.sendall(answer_of(b"text"))

    thread = threading.Thread(target=answer)
    thread.start()
    assert exchange((b"abc", payload, b"def")) == answer_of(b"text")
    thread.join()
    assert received == [b"abc" + payload + b"def"]


@pytest.mark.parametrize("text", [b"", b"x", b"y" * 4096])
def test_an_answer_in_pieces(ends: Any, text: bytes) -> None:
    exchange, theirs = ends
    whole = answer_of(text)

    def answer() -> None:
        theirs.recv(100)
        for start in range(0, len(whole), 700):
            for piece in (whole[start : start + 3], whole[start + 3 : start + 700]):
                theirs.sendall(piece)

    thread = threading.Thread(target=answer)
    thread.start()
    assert exchange((b"abc",)) == whole
    thread.join()


def test_nobody_reads(ends: Any) -> None:
    exchange, _ = ends
    with pytest.raises(OSError, match=r"\w"):
        exchange((bytes(8 * 1024 * 1024),), 0.05)


def test_nobody_answers(ends: Any) -> None:
    exchange, _ = ends
    with pytest.raises(OSError, match=r"\w"):
        exchange((b"abc",), 0.05)


@pytest.mark.parametrize("part", [b"", answer_of(b"text")[:-1], answer_of(b"")[:5]])
def test_the_other_end_closes(ends: Any, part: bytes) -> None:
    exchange, theirs = ends
    theirs.sendall(part)
    theirs.shutdown(socket.SHUT_WR)
    with pytest.raises(OSError, match=r"\w"):
        exchange((b"abc",))


def test_the_other_end_is_gone(ends: Any) -> None:
    """No SIGPIPE, whatever the program does with that."""
    exchange, theirs = ends
    theirs.close()
    with pytest.raises(OSError, match=r"\w"):
        exchange((b"abc",))


def test_an_answer_that_is_too_large(ends: Any) -> None:
    """Not memory for whatever a number says."""
    exchange, theirs = ends
    theirs.sendall(ANSWER.pack(0, 0, 0, 0.0, 2**32 - 1))
    with pytest.raises(OSError, match=r"\w"):
        exchange((b"abc",), 0.2)


def test_bad_arguments_of_the_compiled_one(backend: Any) -> None:
    if backend.exchange is None:
        return
    for arguments, error in (
        ((0, (b"",) * 5, 8, 0, 1.0), ValueError),
        ((0, (b"",), 8, 6, 1.0), ValueError),
        ((0, (b"",), 100_000, 0, 1.0), ValueError),
        ((0, ("text",), 8, 0, 1.0), TypeError),
        ((0, (None,), 8, 0, 1.0), TypeError),
        ((-1, (b"x",), 8, 0, 1.0), OSError),
        ((0, (b"x",), 8, 0, struct), TypeError),
    ):
        with pytest.raises(error):
            backend.exchange(*arguments)
