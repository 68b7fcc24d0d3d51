"""The one road of every request, whichever protocol brought it: read, decode, store, answer.

A call takes no thread while its body arrives or while its spans are being stored.
"""

from __future__ import annotations

import asyncio
import enum
import logging
import os
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial

from infertrace.collector.authorization import BearerToken
from infertrace.collector.counters import Counters
from infertrace.collector.ingest.reading_places import (
    NoPlaceError,
    PlaceLimits,
    ReadingPlaces,
    SlowBodyError,
)
from infertrace.collector.ingest.request_batches import DecodedRequest
from infertrace.collector.ingest.sent_spans import PassOn, SentSpans
from infertrace.collector.ingest.wire_fields import RequestError, RequestTooLargeError
from infertrace.collector.store.group_commit import GroupCommit, OverloadError
from infertrace.collector.store.store import StoreBusyError, StoreError

DECODING_THREADS = max(2, min(16, os.cpu_count() or 1))
RETRY_DELAY_S = 1  # what a sender is told that comes when there is no room

_log = logging.getLogger(__name__)

Decode = Callable[[bytes], DecodedRequest]
Receive = Callable[[], Awaitable["bytes | None"]]
Taken = tuple[DecodedRequest, "Future[None] | None"]


class RefusalKind(enum.Enum):
    """Why a request is refused; each protocol has a status for it."""

    TOKEN = enum.auto()
    INVALID = enum.auto()
    TOO_LARGE = enum.auto()
    SLOW = enum.auto()
    BUSY = enum.auto()  # the sender is told when to come again
    UNAVAILABLE = enum.auto()


class Refusal(Exception):
    """A request that is not taken; the text is for the sender."""

    def __init__(self, kind: RefusalKind, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind


class Ingestion:
    """Makes requests durable. Its coroutines run on one event loop."""

    def __init__(
        self,
        writer: GroupCommit,
        counters: Counters,
        places: PlaceLimits,
        token: BearerToken | None = None,
        pass_on: PassOn | None = None,
    ) -> None:
        self._pass_on = pass_on
        self._writer = writer
        self._counters = counters
        self._token = token
        self._places = ReadingPlaces(places)
        self._threads = ThreadPoolExecutor(DECODING_THREADS, thread_name_prefix="infertrace-decode")
        self._logged: set[type[Exception]] = set()

    @property
    def passes_on(self) -> bool:
        """Whether spans that are durable go on to other collectors."""
        return self._pass_on is not None

    def close(self) -> None:
        """End the threads that decode; no call may follow."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def admit(self, authorization: str | bytes | None) -> None:
        """Count a request; raises Refusal where it does not show the token."""
        self._counters.add(requests=1)
        if self._token is not None and not self._token.permits(authorization):
            raise self.refusal(RefusalKind.TOKEN, "a valid token is required")

    def refusal(self, kind: RefusalKind, reason: str) -> Refusal:
        """A refusal, which is counted."""
        self.count_refusal()
        return Refusal(kind, reason)

    def count_refusal(self) -> None:
        """Count a request that its protocol refuses by itself."""
        self._counters.add(requests_refused=1)

    async def durable(
        self,
        receive: Receive,
        decode: Decode,
        *,
        peer: str,
        commit_timeout_s: float,
        answer_within_s: float | None = None,
        unpack: Callable[[bytes], bytes] | None = None,
        executor: Executor | None = None,
    ) -> DecodedRequest:
        """The decoded request, once it is durable; every failure is a Refusal.

        `receive` returns the body, or None where it does not come to its end. `unpack`, if any,
        makes of it the bytes that `decode` takes, both in a thread of `executor`. All of it, the
        wait for the body included, takes no longer than `answer_within_s`, if that is given.
        """
        loop = asyncio.get_running_loop()
        end_s = None if answer_within_s is None else loop.time() + answer_within_s
        try:
            async with self._places.read(peer, receive, answer_within_s) as body:
                if body is None:
                    raise SlowBodyError("the request did not come to its end")
                taking = loop.run_in_executor(
                    executor or self._threads, self._take, body, decode, unpack
                )
                decoded, done = await _within(taking, end_s)
            if done is not None:
                if end_s is not None:
                    commit_timeout_s = max(0.0, min(commit_timeout_s, end_s - loop.time()))
                await _durable(done, commit_timeout_s)
            return decoded
        except SlowBodyError as error:
            raise self.refusal(RefusalKind.SLOW, str(error)) from error
        except RequestTooLargeError as error:
            raise self.refusal(RefusalKind.TOO_LARGE, str(error)) from error
        except RequestError as error:
            raise self.refusal(RefusalKind.INVALID, str(error)) from error
        except (NoPlaceError, OverloadError, StoreBusyError) as error:
            raise self.refusal(RefusalKind.BUSY, str(error)) from error
        except TimeoutError as error:
            # The spans may still get stored; the store then recognises the retry as a duplicate.
            raise self.refusal(RefusalKind.UNAVAILABLE, str(error)) from error
        except StoreError as error:
            _log.error("spans could not be stored: %s", error)
            reason = "the spans could not be stored"
            raise self.refusal(RefusalKind.UNAVAILABLE, reason) from error
        except Exception as error:
            # The protocols' own answer would not tell the sender that it may try again.
            self._log_once(error)
            raise self.refusal(RefusalKind.UNAVAILABLE, "the collector failed") from error

    def _take(self, body: bytes, decode: Decode, unpack: Callable[[bytes], bytes] | None) -> Taken:
        """Decode a request and queue it; the future is done when it is durable."""
        raw = body if unpack is None else unpack(body)
        with self._writer.reserve(len(raw)) as reservation:
            decoded = decode(raw)
            batch = decoded.batch
            self._counters.add(spans_rejected=len(batch.rejected_positions))
            sent = decoded.sent
            decoded = replace(decoded, sent=None)  # it need not stay until the answer
            if batch.producer is None and not batch.senders and not len(batch.rows):
                return decoded, None
            done = self._writer.submit(batch, reservation)
            if self._pass_on is not None and sent is not None and len(batch.rows):
                done.add_done_callback(partial(_pass_on, self._pass_on, sent))
            return decoded, done

    def _log_once(self, error: Exception) -> None:
        """Log the first error of each type, with its traceback."""
        if type(error) not in self._logged:
            self._logged.add(type(error))
            _log.error("a request failed, as others may after it", exc_info=error)


def _pass_on(pass_on: PassOn, sent: SentSpans, done: Future[None]) -> None:
    if not done.cancelled() and done.exception() is None:
        pass_on(sent)


async def _within(taking: asyncio.Future[Taken], end_s: float | None) -> Taken:
    """The result; TimeoutError where it has not come in time, and then it need not come."""
    if end_s is not None:
        timeout_s = max(0.0, end_s - asyncio.get_running_loop().time())
        await asyncio.wait({taking}, timeout=timeout_s)
        if not taking.done():
            taking.cancel()
            raise TimeoutError("too many requests wait to be decoded")
    return await taking


async def _durable(done: Future[None], timeout_s: float) -> None:
    durable = asyncio.wrap_future(done)
    # The queued batch cannot be taken back, so the wait for it is not cancelled either.
    await asyncio.wait({durable}, timeout=timeout_s)
    if not durable.done():
        raise TimeoutError(f"the store took longer than {timeout_s:g} s")
    durable.result()
