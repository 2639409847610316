"""Runs daemons on an event loop until told to stop: signals, restarts after a collision."""

import asyncio
import logging
import os
import signal

import uvloop

from zt.service.daemon import Daemon, Outcome
from zt.service.errors import ServiceError
from zt.service.home import Home
from zt.service.logs import configure
from zt.service.notify import notify

log = logging.getLogger("zt.service")

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT)
STOP_LIMIT_S = 5


def run(home: Home, port: int | None) -> int:
    """The service until it is stopped; its exit code. Raises ServiceError."""
    configure()
    home.claim()
    try:
        while True:
            daemon = Daemon(home, port)
            outcome = uvloop.run(_live(daemon))
            if outcome is not Outcome.COLLISION:
                return 0
    except (ServiceError, KeyboardInterrupt):
        raise
    except Exception as error:
        if log.isEnabledFor(logging.DEBUG):
            raise
        raise ServiceError(f"unexpected exception in main thread: {error}") from error
    finally:
        home.release()


async def _live(daemon: Daemon) -> Outcome:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def ask_to_stop() -> None:
        # Whatever hangs, the process ends: the alarm is not handled on the loop.
        signal.signal(signal.SIGALRM, lambda number, frame: os._exit(0))
        signal.alarm(STOP_LIMIT_S)
        notify("STOPPING=1")
        stop.set()

    for number in STOP_SIGNALS:
        loop.add_signal_handler(number, ask_to_stop)
    loop.add_signal_handler(signal.SIGHUP, daemon.reload)
    loop.set_exception_handler(_report)
    try:
        return await daemon.run(stop, lambda: notify("READY=1"))
    finally:
        signal.alarm(0)


def _report(loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
    """An exception in a callback is a bug: said in one line, with its trace at debug level."""
    error = context.get("exception")
    trace = error if isinstance(error, BaseException) else None
    log.error("%s: %r", context.get("message"), error)
    log.debug("trace", exc_info=trace)
