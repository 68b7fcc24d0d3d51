"""A request to the sender process and its answer, by both backends' own way over the socket."""

from __future__ import annotations

import os
import random
import resource
import select
import signal
import socket
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from infertrace.exporting import link
from infertrace.exporting.answer import (
    Answer,
    Overloaded,
    Refused,
    Retryable,
    Stumbled,
    TooLarge,
)


@pytest.fixture
def sender() -> None:
    """No exporter runs here."""


@pytest.fixture
def ends(backend: Any) -> Iterator[tuple[Callable[..., bytes], socket.socket]]:
    """The way to the other end of a socket, and that end."""
    ours, theirs = socket.socketpair()
    way = link.choose_roundtrip(ours, backend.roundtrip, on_idle=lambda: False)

    def roundtrip(parts: tuple[bytes, ...], timeout_s: float = 30) -> bytes:
        return way(parts, timeout_s)

    with ours, theirs:
        yield roundtrip, theirs


def answer_of(text: bytes) -> bytes:
    return link.pack_answer(Answer(1, 2, text.decode()))


@pytest.mark.parametrize("size", [0, 1, 300_000, 4 * 1024 * 1024])
def test_parts_of_any_size(ends: Any, size: int) -> None:
    roundtrip, theirs = ends
    payload = random.Random(size).randbytes(size)
    received = []

    def answer() -> None:
        received.append(theirs.recv(size + 6, socket.MSG_WAITALL))
        theirs.sendall(answer_of(b"text"))

    thread = threading.Thread(target=answer)
    thread.start()
    assert roundtrip((b"abc", payload, b"def")) == answer_of(b"text")
    thread.join()
    assert received == [b"abc" + payload + b"def"]


@pytest.mark.parametrize("text", [b"", b"x", b"y" * 4096])
def test_an_answer_in_pieces(ends: Any, text: bytes) -> None:
    roundtrip, theirs = ends
    whole = answer_of(text)

    def answer() -> None:
        theirs.recv(100)
        for start in range(0, len(whole), 700):
            for piece in (whole[start : start + 3], whole[start + 3 : start + 700]):
                theirs.sendall(piece)

    thread = threading.Thread(target=answer)
    thread.start()
    assert roundtrip((b"abc",)) == whole
    thread.join()


def test_a_signal_amid_a_request(ends: Any) -> None:
    """The kernel then returns with a part of it written."""
    roundtrip, theirs = ends
    payload = random.Random(0).randbytes(4 * 1024 * 1024)
    received = []
    main = threading.main_thread().ident
    assert main is not None

    def answer() -> None:
        select.select([theirs], [], [])
        for _ in range(100):
            received.append(theirs.recv(1024))
            signal.pthread_kill(main, signal.SIGUSR1)
        received.append(theirs.recv(len(payload) - sum(map(len, received)), socket.MSG_WAITALL))
        theirs.sendall(answer_of(b"text"))

    previous = signal.signal(signal.SIGUSR1, lambda *_: None)
    thread = threading.Thread(target=answer)
    try:
        thread.start()
        assert roundtrip((payload,)) == answer_of(b"text")
        thread.join()
    finally:
        signal.signal(signal.SIGUSR1, previous)
    assert b"".join(received) == payload


def test_nobody_reads(ends: Any) -> None:
    roundtrip, _ = ends
    with pytest.raises(OSError, match=r"\w"):
        roundtrip((bytes(8 * 1024 * 1024),), 0.05)


def test_nobody_answers(ends: Any) -> None:
    roundtrip, _ = ends
    with pytest.raises(OSError, match=r"\w"):
        roundtrip((b"abc",), 0.05)


@pytest.mark.parametrize("part", [b"", answer_of(b"text")[:-1], answer_of(b"")[:5]])
def test_the_other_end_closes(ends: Any, part: bytes) -> None:
    roundtrip, theirs = ends
    theirs.sendall(part)
    theirs.shutdown(socket.SHUT_WR)
    with pytest.raises(OSError, match=r"\w"):
        roundtrip((b"abc",))


def test_the_other_end_is_gone(ends: Any) -> None:
    """No SIGPIPE, whatever the program does with that."""
    roundtrip, theirs = ends
    theirs.close()
    with pytest.raises(OSError, match=r"\w"):
        roundtrip((b"abc",))


def test_an_answer_that_is_too_large(ends: Any) -> None:
    """Not memory for whatever a number says."""
    roundtrip, theirs = ends
    theirs.sendall(answer_of(b"")[: link.ANSWER_SIZE_AT] + b"\xff" * 4)
    with pytest.raises(OSError, match=r"\w"):
        roundtrip((b"abc",), 0.2)


@pytest.mark.parametrize(
    "outcome",
    [
        Answer(3, 1, "one has no name"),
        TooLarge("a"),
        Refused("b"),
        Overloaded("c"),
        Stumbled("d"),
        Retryable("e"),
        Retryable("f", 1.5),
        Retryable("é" * 4096),
    ],
    ids=str,
)
def test_what_the_sender_met_is_what_the_traced_process_reads(outcome: Any) -> None:
    packed = link.pack_answer(outcome)
    if isinstance(outcome, Answer):
        assert link.unpack_answer(packed) == outcome
        return
    with pytest.raises(type(outcome)) as raised:
        link.unpack_answer(packed)
    assert str(outcome).startswith(str(raised.value))
    assert getattr(raised.value, "retry_after_s", None) == getattr(outcome, "retry_after_s", None)


def test_an_error_that_nobody_foresaw_is_worth_another_try() -> None:
    with pytest.raises(Retryable, match="ValueError: no"):
        link.unpack_answer(link.pack_answer(ValueError("no")))


def test_a_request_arrives_as_it_was_sent() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        with ours:
            ours.sendall(b"".join(link.frame((b"ab", b"", b"cd"), 7, 2.5)))
        assert link.receive(theirs) == (b"abcd", 7, 2.5, link.Kind.SEND, None)
        assert link.receive(theirs) is None


def test_a_descriptor_arrives_with_its_frame(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, (tmp_path / "file").open("w+b") as file:
        packed = link.pack_frame(link.Kind.HOLD, b"body" * 100_000, span_count=3)
        sending = threading.Thread(
            target=link.send_with_descriptor, args=(ours, packed, file.fileno())
        )
        sending.start()
        received = link.receive(theirs)
        sending.join()
        assert received is not None
        assert received.descriptor is not None
        assert (len(received.body), received.kind) == (400_000, link.Kind.HOLD)
        assert not os.get_inheritable(received.descriptor)
        os.write(received.descriptor, b"written by the other end")
        os.close(received.descriptor)
        file.seek(0)
        assert file.read() == b"written by the other end"


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nobody can look without taking")
def test_a_descriptor_waits_until_there_is_room_for_it() -> None:
    ours, theirs = socket.socketpair()
    received: list[link.Received | None] = []
    with ours, theirs:
        link.send_with_descriptor(ours, link.pack_frame(link.Kind.HOLD, b"body"), ours.fileno())
        receiving = threading.Thread(target=lambda: received.append(link.receive(theirs)))
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        lowest_free = os.dup(ours.fileno())
        os.close(lowest_free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
        try:
            receiving.start()
            receiving.join(0.3)
            assert receiving.is_alive()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        receiving.join()
        (frame,) = received
        assert frame is not None
        assert frame.descriptor is not None
        assert os.path.sameopenfile(frame.descriptor, ours.fileno())
        os.close(frame.descriptor)


@pytest.mark.parametrize("size", [2**63, 65 * 1024 * 1024])
def test_a_frame_that_is_too_large_is_of_another_protocol(size: int) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(struct.pack("=QdqII", size, 0, 0, 0, 0))
        assert link.receive(theirs) is None


@pytest.mark.parametrize(
    ("said", "error"),
    [
        (b"", ConnectionResetError),
        (link.greeting()[:2], ConnectionResetError),
        (link.greeting(is_ready=False), BlockingIOError),
        (b"HTTP/1.1 400", ConnectionAbortedError),
    ],
)
def test_greetings_that_are_none(said: bytes, error: type[Exception]) -> None:
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            theirs.sendall(said)
        with pytest.raises(error):
            link.read_greeting(ours)


def test_bad_arguments_of_the_compiled_one(backend: Any) -> None:
    if backend.roundtrip is None:
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
            backend.roundtrip(*arguments)
