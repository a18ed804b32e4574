"""Logs: one JSON object a line on standard error; ids, lengths and timings, no users' text."""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Any


class JsonFormatter(logging.Formatter):
    """Puts time, level, event and the fields given with `extra={"fields": {...}}` on one line."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service
        self._encode = json.JSONEncoder(ensure_ascii=False, default=str).encode
        self._second, self._stamp = 0, ""  # the last one written, and how

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one JSON object."""
        seconds, milliseconds = divmod(int(record.created * 1000), 1000)
        if seconds != self._second:
            self._second = seconds
            self._stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
        line: dict[str, Any] = {
            "time": f"{self._stamp}.{milliseconds:03d}Z",
            "level": record.levelname.lower(),
            "service": self._service,
            "event": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return self._encode(line)


def configure_logs(service: str, level: str) -> None:
    """Send all log records of this process to standard error in our format."""
    # What we never write need not be found out for each line.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging._srcfile = None  # who has logged: documented in Python's logging HOWTO
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(service))
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)


def log(logger: logging.Logger, level: int, event: str, **fields: object) -> None:
    """Log an event with fields."""
    if logger.isEnabledFor(level):
        extra = {"fields": fields}
        logger.handle(logger.makeRecord(logger.name, level, "", 0, event, (), None, extra=extra))
