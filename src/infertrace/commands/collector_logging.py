"""The collector's log on standard error: lines of text, or of JSON."""

from __future__ import annotations

import json
import logging
import time


class JsonFormatter(logging.Formatter):
    """One object per line: `time` (RFC 3339, UTC), `level`, `logger`, `message`, `exception`."""

    def format(self, record: logging.LogRecord) -> str:
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line = {
            "time": f"{moment}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def configure_logging(style: str, level: str) -> None:
    """Log everything at `level` or above; the style is `text` or `json`."""
    handler = logging.StreamHandler()
    if style == "json":
        handler.setFormatter(JsonFormatter())
    else:
        text = "infertrace collector: %(levelname)s: %(message)s"
        handler.setFormatter(logging.Formatter(text))
    logging.basicConfig(handlers=[handler], level=level.upper())
