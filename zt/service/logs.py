"""Logging of the service: stderr, one line per message, silent when all is well.

Every subsystem has a logger below `zt` whose level can be changed while running. A message that
repeats is held back: at most `BURST` of the same text per `WINDOW_S`, then one line with the count.
"""

import json
import logging
import os
import sys
import time

SUBSYSTEMS = ("service", "node", "networks", "sockets", "api", "dns", "portmap", "tcprelay")
LEVELS = ("debug", "info", "warning", "error")
BURST = 5
WINDOW_S = 60.0
MAX_TEXTS = 1024


class RateLimit(logging.Filter):
    """Lets each text through `BURST` times per window."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: dict[str, tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        key = f"{record.name}:{record.msg}"
        now = time.monotonic()
        begin, count = self._seen.get(key, (now, 0))
        if now - begin > WINDOW_S:
            if count > BURST:
                record.msg = f"{record.msg} ({count - BURST} more like this)"
            begin, count = now, 0
        if key not in self._seen and len(self._seen) >= MAX_TEXTS:
            self._seen.clear()
        self._seen[key] = (begin, count + 1)
        return count < BURST


class JsonFormatter(logging.Formatter):
    """One JSON object per line: time (ms), level, subsystem, message."""

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": int(record.created * 1000),
            "level": record.levelname.lower(),
            "subsystem": record.name.removeprefix("zt."),
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["trace"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False)


def configure() -> None:
    """`ZT_LOG` is the level (warning), `ZT_LOG_FORMAT=json` asks for structured lines."""
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(RateLimit())
    if os.environ.get("ZT_LOG_FORMAT") == "json":
        handler.setFormatter(JsonFormatter())
    else:
        handler.setFormatter(logging.Formatter("%(message)s"))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    level = os.environ.get("ZT_LOG", "warning").lower()
    logging.getLogger("zt").setLevel(level.upper() if level in LEVELS else "WARNING")
    for name in ("uvicorn.error", "pyroute2", "asyncio"):
        logging.getLogger(name).setLevel(logging.ERROR)


def levels() -> dict[str, str]:
    """Effective level of every subsystem."""
    return {
        name: logging.getLevelName(logging.getLogger(f"zt.{name}").getEffectiveLevel()).lower()
        for name in SUBSYSTEMS
    }


def set_level(subsystem: str, level: str) -> bool:
    """Change one subsystem, or all with `*`. False for an unknown name or level."""
    if level not in LEVELS or subsystem not in (*SUBSYSTEMS, "*"):
        return False
    names = SUBSYSTEMS if subsystem == "*" else (subsystem,)
    for name in names:
        logging.getLogger(f"zt.{name}").setLevel(level.upper())
    return True
