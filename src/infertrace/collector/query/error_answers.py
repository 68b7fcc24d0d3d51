"""Every error as a JSON object with the key `error`."""

from __future__ import annotations

import logging

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from infertrace.collector.query.parameters import ParameterError
from infertrace.collector.store.grouping import TooManyGroupsError
from infertrace.collector.store.store import QueryTimeoutError, StoreError

_log = logging.getLogger(__name__)


def add_error_answers(app: FastAPI) -> None:
    """Have the application answer every error that a route raises."""
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(ParameterError, _bad_parameter)
    app.add_exception_handler(StoreError, _store_error)
    app.add_exception_handler(QueryTimeoutError, _query_timeout)
    app.add_exception_handler(TooManyGroupsError, _too_many_groups)
    app.add_exception_handler(Exception, _unexpected_error)


def _error(status: int, text: str) -> JSONResponse:
    return JSONResponse({"error": text}, status)


def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    text = str(error.detail)
    if error.status_code == 404 and text == "Not Found":
        text = f"no such route: {request.url.path[:100]}"
    elif error.status_code == 405:
        text = f"{request.method}: expected GET or HEAD"
    answer = _error(error.status_code, text)
    answer.headers.update(error.headers or {})
    return answer


def _bad_parameter(_: Request, error: Exception) -> Response:
    return _error(400, str(error))


def _query_timeout(_: Request, error: Exception) -> Response:
    return _error(504, f"the query {error}; ask for less time, or raise --query-timeout")


def _too_many_groups(_: Request, error: Exception) -> Response:
    return _error(422, f"{error} in this time: choose a model, or ask for less time")


def _store_error(_: Request, error: Exception) -> Response:
    _log.error("the store could not answer: %s", error)
    return _error(503, "the store cannot answer")


def _unexpected_error(_: Request, error: Exception) -> Response:
    _log.error("an answer failed", exc_info=error)
    return _error(500, "internal error")
