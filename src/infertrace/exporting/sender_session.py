"""What a sender does for one connection: delivers, answers, and holds what its process leaves."""

from __future__ import annotations

import contextlib
import os
import select
import socket
from typing import TYPE_CHECKING, Final

from infertrace.buffering.left_memory import producer_of
from infertrace.buffering.left_spans import DamagedSpansError
from infertrace.buffering.memory_reader import read_memory
from infertrace.exporting import link, packed_request
from infertrace.exporting.answer import (
    Answer,
    CannotEncode,
    Overloaded,
    Refused,
    Retryable,
    SendError,
)
from infertrace.exporting.envelope import read_sender
from infertrace.exporting.gpu_readings import GpuReadings
from infertrace.exporting.held_spans import HeldMemory, HeldSpans
from infertrace.exporting.introduction import Introduction
from infertrace.exporting.process_end import ProcessEnd
from infertrace.exporting.sent_batches import SentBatches
from infertrace.exporting.shared_memories import SharedMemories, SharedMemory
from infertrace.exporting.shared_transports import SharedTransport, SharedTransports

if TYPE_CHECKING:
    from collections.abc import Callable

    from infertrace.exporting.envelope import Request

_BLOCK_BYTES: Final = 512  # of st_blocks: stat(2)
_WITH_DESCRIPTOR: Final = (link.Kind.HOLD, link.Kind.MEMORY)


def has_hung_up(connection: socket.socket) -> bool:
    """Whether the other end has closed, so that nobody waits for what is said there."""
    poll = select.poll()
    poll.register(connection, 0)  # poll reports a hang-up without being asked
    return bool(poll.poll(0))


class Session:
    """One connection, on one thread."""

    def __init__(
        self,
        connection: socket.socket,
        transports: SharedTransports,
        *,
        name: str = "",
        sent: SentBatches | None = None,
        held: HeldSpans | None = None,
        memories: SharedMemories | None = None,
        gpus: GpuReadings | None = None,
        describe: Callable[[], str] = str,
        admit: Callable[[Introduction], Introduction] = lambda introduction: introduction,
        takes_packed: bool = False,
    ) -> None:
        """held: None where nothing is held for those who have gone. gpus: None where this process
        reads none. name: for messages.
        admit: what an introduction means here; raises SendError where nothing is sent for it.
        takes_packed: whether packed spans are read; only where the other end is the same user."""
        self._connection = connection
        self._transports = transports
        self._sent = sent or SentBatches()
        self._held = held
        self._memories = memories
        self._gpus = gpus
        self._describe = describe
        self._admit = admit
        self._takes_packed = takes_packed
        self._why_not: SendError = Retryable("expected a target before a batch")
        self._name = name
        self.introduction: Introduction | None = None
        self.is_new = True
        """Whether its memory may be still to come."""
        self._transport: SharedTransport | None = None
        self._is_tracers_target = True
        self._producer_id = b""
        self._memory: SharedMemory | None = None
        self._is_ending = False

    def end(self) -> None:
        """Handle what has come, and hang up: the process is to find another sender."""
        self._is_ending = True
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RD)

    def run(self) -> None:
        """Until the other end closes; raises OSError where it does so amid a frame."""
        try:
            while (received := link.receive(self._connection)) is not None:
                self._handle(received)
        finally:
            self._leave()

    def _handle(self, received: link.Received) -> None:
        if received.kind != link.Kind.TARGET:
            self.is_new = False
        if received.kind not in _WITH_DESCRIPTOR and received.descriptor is not None:
            os.close(received.descriptor)
        if received.kind == link.Kind.SEND:
            self._answer(link.pack_answer(self._send(received, (received.body,))))
        elif received.kind == link.Kind.PACKED:
            self._answer(link.pack_answer(self._send_packed(received)))
        elif received.kind == link.Kind.TARGET:
            self._introduce(received.body)
        elif received.kind == link.Kind.HOLD:
            self._answer(link.pack_answer(self._hold(received)))
        elif received.kind == link.Kind.MEMORY:
            self._share(received.descriptor)
        elif received.kind == link.Kind.STATUS:
            self._answer(link.pack_status(self._describe()))
        else:
            raise ConnectionAbortedError(f"a frame of an unknown kind, {received.kind}")

    def _answer(self, answer: bytes) -> None:
        # Its process may listen no longer, and have said more already: that it leaves something.
        with contextlib.suppress(ConnectionError):
            self._connection.sendall(answer)

    def _introduce(self, body: bytes) -> None:
        self._release()
        self.introduction = None
        try:
            introduced = Introduction.decode(body)
            self.introduction = self._admit(introduced)
        except SendError as error:
            self._why_not = error
            return
        self._is_tracers_target = self.introduction.target == introduced.target
        self._transport = self._transports.acquire(self.introduction.target)
        if self._gpus is not None:
            self._gpus.want(self, self.introduction.gpu_interval_s)

    def _send_packed(self, received: link.Received) -> Answer | Exception:
        if not self._takes_packed:
            return CannotEncode("this sender encodes for nobody")
        try:
            request = packed_request.read(received.body, received.span_count)
        except CannotEncode as error:
            return error
        return self._send(received, request)

    def _send(self, received: link.Received, request: Request) -> Answer | Exception:
        if self._transport is None:
            return self._why_not
        sent = read_sender(request[-1], self._producer_id)
        if sent is not None:
            self._producer_id = sent.producer_id
            self._sent.begin(sent)
        answer = None
        try:
            # A tracer switches to OTLP itself, and says so to its user.
            transport = self._transport
            send = transport.send if self._is_tracers_target else transport.send_either_way
            answer = send(request, received.span_count, received.timeout_s)
        except Exception as error:
            return error
        finally:
            if sent is not None:
                self._sent.end(sent, received.span_count, answer)
        return answer

    def _hold(self, received: link.Received) -> Answer | Exception:
        if received.descriptor is None:
            return Overloaded("the sender has no descriptor to spare")
        if self._held is None or self.introduction is None:
            os.close(received.descriptor)
            return Refused("this sender holds nothing")
        try:
            self._hold_memory(received.descriptor, received.span_count, is_whole=True)
        except (Overloaded, DamagedSpansError, OSError) as error:
            return error
        return Answer(received.span_count, 0, "")

    def _hold_memory(self, descriptor: int, span_count: int | None, *, is_whole: bool) -> None:
        """Takes the descriptor over. span_count: None where only the memory says it.
        Raises Overloaded, DamagedSpansError and OSError."""
        if self._held is None or self.introduction is None:
            os.close(descriptor)
            return
        size_bytes = os.fstat(descriptor).st_blocks * _BLOCK_BYTES
        left = read_memory(descriptor, self._name)
        try:
            if self._sent.mark_ended(left.producer_id):
                held = HeldMemory(
                    left,
                    size_bytes=size_bytes,
                    span_count=left.last_sequence - left.settled_sequence
                    if span_count is None
                    else span_count,
                    max_batch_bytes=self.introduction.max_batch_bytes,
                    sent=self._sent,
                    is_whole=is_whole,
                )
                try:
                    self._held.hold(held, self.introduction, anyway=has_hung_up(self._connection))
                except Overloaded:
                    self._sent.unmark_ended(left.producer_id)
                    raise
            else:  # it has said goodbye, or did not hear that its spans are held
                left.close()
        except BaseException:
            left.close()
            raise

    def _leave(self) -> None:
        """What the process does not deliver itself any more."""
        if self._gpus is not None:
            self._gpus.leave(self)
        memory, self._memory = self._memory, None
        if memory is not None and self._is_ending and not has_hung_up(self._connection):
            memory.close()  # it has not gone, and shares it with the next one
            memory = None
        if memory is not None and self._memories is not None:
            memory.owner.ensure()
            self._memories.leave(memory, self._hold_left, self._is_over)
        if self._held is not None and self.introduction is not None:
            self._held.hold_directory(self.introduction)
        self._release()

    def _share(self, descriptor: int | None) -> None:
        if self._memory is not None:
            self._memory.close()
            self._memory = None
        if descriptor is None:
            return
        if self._memories is None:
            os.close(descriptor)
            return
        self._memories.found_again(descriptor)
        self._memory = SharedMemory(descriptor, ProcessEnd(self._connection))

    def _is_over(self, descriptor: int) -> bool:
        """Whether the producer of this memory has said goodbye, or has handed over what it had."""
        return self._sent.has_ended(producer_of(descriptor))

    def _hold_left(self, descriptor: int) -> bool:
        """What a process has left; False where there is no room for it now."""
        try:
            self._hold_memory(os.dup(descriptor), None, is_whole=False)
        except (Overloaded, OSError):
            return False
        except DamagedSpansError:
            return True
        return True

    def _release(self) -> None:
        transport, self._transport = self._transport, None
        if transport is not None:
            self._transports.release(transport)
