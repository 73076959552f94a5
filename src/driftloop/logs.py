"""Log lines as JSON, one object a line, for services; library code only logs.

`trace` is the id that leads from prediction to version: a decision's key, which its order, its
flow run, its version in MLflow and its page carry too. `driftloop trace` follows it.
"""

import logging
import sys
from datetime import UTC, datetime
from typing import IO, Any

import msgspec

OURS = ("driftloop", "flows", "dashboards")
_KNOWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def configure(service: str, *, out: IO[str] | None = None) -> None:
    """Let everything that is logged in this process go to `out` (stderr) as JSON lines.

    Ours from INFO on, what libraries say from WARNING on.
    """
    handler = logging.StreamHandler(out or sys.stderr)
    handler.setFormatter(JsonLines(service))
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    for name in OURS:
        logging.getLogger(name).setLevel(logging.INFO)
    # What came with handlers of its own, as Prefect does, keeps them and speaks JSON too.
    for logger in [logging.getLogger(name) for name in logging.root.manager.loggerDict]:
        for each in logger.handlers:
            if isinstance(each, logging.StreamHandler):
                each.setFormatter(handler.formatter)


class JsonLines(logging.Formatter):
    """Formats a record as one JSON object: at, level, service, logger, message, and what it brings.

    What is given as `extra` stands beside these, an exception's traceback as `error`.
    """

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        """Return the line.

        >>> record = logging.makeLogRecord({"msg": "told %s", "args": ("once",), "created": 0.0,
        ...                                 "levelname": "INFO", "name": "driftloop", "trace": "k"})
        >>> print(JsonLines("worker").format(record))  # doctest: +ELLIPSIS
        {"at":"1970-01-01T00:00:00+00:00","level":"info","service":"worker",...,"trace":"k"}
        """
        said: dict[str, Any] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname.lower(),
            "service": self._service,
            "logger": record.name,
            "message": record.getMessage(),
        }
        said |= {key: value for key, value in vars(record).items() if key not in _KNOWN}
        if record.exc_info:
            said["error"] = self.formatException(record.exc_info)
        return msgspec.json.encode(said, enc_hook=str).decode(errors="replace")
