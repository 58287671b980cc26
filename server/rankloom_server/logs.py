"""The log: JSON lines on stderr, with fields of an allow-list and no user data.

Facts about a call are collected while it runs and written as one line when it ends. A fault is
logged as the exception's type and stack, never its text, which may quote a user's data.
"""

from __future__ import annotations

import logging
import secrets
import sys
import traceback
from collections.abc import Mapping, MutableMapping
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any, Final

import structlog

_ALLOWED: Final = frozenset(
    {
        "event", "level", "timestamp",
        # the process
        "address", "bundle_digest", "revision", "service", "all_ended",
        "rollout_state", "reason", "verdict", "device", "dtype", "variables",
        # a call
        "method", "code", "request_id", "fallback_level", "fallback_reason", "route", "cold_start",
        "features_failure", "num_candidates", "history_events", "prompt_tokens",
        "generated_tokens", "stop_reason", "num_evidence", "num_explained", "evidence_failure",
        "total_ms", "features_ms", "prompt_ms", "queue_ms", "model_ms", "search_ms",
        "k", "retrieve_k", "num_retrieved", "retrieval_order", "explanation_source",
        # a fault
        "error_id", "exception", "caused_by", "stack",
    }
)  # fmt: skip

_NOTES: ContextVar[Mapping[str, object]] = ContextVar(
    "rankloom_notes", default=MappingProxyType({})
)


def configure(level: str) -> None:
    """Sends lines of at least this level to stderr."""
    structlog.configure(
        processors=[
            _with_notes,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _keep_allowed,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.getLevelNamesMapping()[level.upper()]
        ),
        logger_factory=lambda *_: structlog.WriteLogger(sys.stderr),  # whichever it is then
    )


def write(event: str, **fields: object) -> None:
    """Writes one line, with the facts of the running call."""
    structlog.get_logger().info(event, **fields)


def forget() -> None:
    """Drops the facts: a new call begins in this task."""
    _NOTES.set({})


def note(**fields: object) -> None:
    """Adds facts of the running call to its line."""
    # One variable for all of them: structlog's own have one for each, at a microsecond a field.
    _NOTES.set({**_NOTES.get(), **fields})


def fault(event: str, error: BaseException) -> str:
    """Logs where an exception came from; returns the id of the line."""
    error_id = secrets.token_hex(8)
    origin = error.__cause__ or error
    structlog.get_logger().error(
        event,
        error_id=error_id,
        exception=type(error).__qualname__,
        caused_by=type(origin).__qualname__,
        stack="".join(traceback.format_tb(origin.__traceback__)),
    )
    return error_id


def _with_notes(
    _logger: object, _method: str, fields: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    return {**_NOTES.get(), **fields}


def _keep_allowed(
    _logger: object, _method: str, fields: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    return {name: value for name, value in fields.items() if name in _ALLOWED}
