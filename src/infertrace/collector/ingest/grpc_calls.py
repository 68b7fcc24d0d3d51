"""What the services on the gRPC server share: reading a call, and refusing it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NoReturn

import grpc
import grpc.aio

from infertrace.collector.ingest.ingestion import RETRY_DELAY_S, Refusal, RefusalKind
from infertrace.wire.retry_info import (
    RETRY_INFO_KEY,
    STATUS_DETAILS_KEY,
    retry_details,
    retry_info,
)

Context = grpc.aio.ServicerContext[bytes, Any]
GrpcMethod = Callable[[AsyncIterator[bytes], Context], Awaitable[bytes]]

_CODES = {
    RefusalKind.TOKEN: grpc.StatusCode.UNAUTHENTICATED,
    RefusalKind.INVALID: grpc.StatusCode.INVALID_ARGUMENT,
    RefusalKind.TOO_LARGE: grpc.StatusCode.RESOURCE_EXHAUSTED,
    RefusalKind.SLOW: grpc.StatusCode.CANCELLED,
    RefusalKind.BUSY: grpc.StatusCode.RESOURCE_EXHAUSTED,
    RefusalKind.UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
}


def authorization(context: Context) -> str | bytes | None:
    """The metadata entry that has the token."""
    return dict(context.invocation_metadata() or ()).get("authorization")


async def first(requests: AsyncIterator[bytes]) -> bytes | None:
    """The request of a call that has one."""
    async for raw in requests:
        return raw
    return None


async def refuse(context: Context, refusal: Refusal) -> NoReturn:
    """End the call. Who comes for room in vain reads when to come again, in either trailer.

    OpenTelemetry's exporter in Python reads one, those in Go and C++ the other.
    """
    reason = str(refusal)
    trailers: tuple[tuple[str, bytes], ...] = ()
    if refusal.kind is RefusalKind.BUSY:
        trailers = (
            (STATUS_DETAILS_KEY, retry_details(reason, RETRY_DELAY_S)),
            (RETRY_INFO_KEY, retry_info(RETRY_DELAY_S)),
        )
    await context.abort(_CODES[refusal.kind], reason, trailers)
