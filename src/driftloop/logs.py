"""Log lines as JSON, one object a line, for services; library code only logs.

`trace` is the id that leads from prediction to version: a decision's key, which its order, its
flow run, its version in MLflow and its page carry too. `driftloop trace` follows it.
"""

import logging
import sys
import threading
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import msgspec

OURS = ("driftloop", "flows", "dashboards")
_KNOWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


LARGEST, KEPT = 20 * 2**20, 3
"""Bytes at which a file of log lines is put aside, and how many such are kept."""
_log = logging.getLogger(__name__)


def configure(service: str, *, out: IO[str] | Path | None = None) -> None:
    """Let everything that is logged in this process go to `out` (stderr) as JSON lines.

    Ours from INFO on, what libraries say from WARNING on; warnings too, and exceptions that nobody
    caught. A file is appended to, and such exceptions are shown on stderr all the same.
    """
    handler: logging.Handler
    if isinstance(out, Path):
        out.parent.mkdir(parents=True, exist_ok=True)
        handler = RotatingFileHandler(out, maxBytes=LARGEST, backupCount=KEPT, encoding="utf-8")
    else:
        handler = logging.StreamHandler(out or sys.stderr)
    handler.setFormatter(JsonLines(service))
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.captureWarnings(capture=True)
    if isinstance(out, Path):
        _also_log_uncaught()
    else:
        # The log is where stderr goes: said once.
        sys.excepthook, threading.excepthook = _uncaught, _uncaught_in_thread
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
        try:
            return msgspec.json.encode(said, enc_hook=str).decode()
        except (ValueError, TypeError):  # a lone surrogate, say: no line is lost for what it holds
            plain = {key: str(value).encode(errors="replace") for key, value in said.items()}
            return msgspec.json.encode({k: v.decode() for k, v in plain.items()}).decode()


def _uncaught(
    kind: type[BaseException], error: BaseException | None, trace: TracebackType | None
) -> None:
    thread = threading.current_thread().name
    told = (kind, error or kind(), trace)
    _log.critical("nobody caught %s in %s", kind.__name__, thread, exc_info=told)


def _uncaught_in_thread(args: threading.ExceptHookArgs) -> None:
    if not issubclass(args.exc_type, SystemExit):
        _uncaught(args.exc_type, args.exc_value, args.exc_traceback)


def _also_log_uncaught() -> None:
    def here(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        _uncaught(kind, error, trace)
        sys.__excepthook__(kind, error, trace)

    def in_thread(args: threading.ExceptHookArgs) -> None:
        _uncaught_in_thread(args)
        threading.__excepthook__(args)

    sys.excepthook, threading.excepthook = here, in_thread
