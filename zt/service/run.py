"""Runs daemons on an event loop until told to stop: signals, restarts after a collision."""

import asyncio
import logging
import os
import signal
from typing import TYPE_CHECKING

import uvloop

from zt.service.errors import ServiceError
from zt.service.home import Home
from zt.service.logs import configure
from zt.service.notify import notify
from zt.service.prepare import prepare

if TYPE_CHECKING:
    from zt.service.daemon import Daemon, Outcome

log = logging.getLogger("zt.service")

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT)
STOP_LIMIT_S = 5


def run(home: Home, port: int | None) -> int:
    """The service until it is stopped; its exit code. Raises ServiceError."""
    configure()
    home.claim()
    try:
        while True:
            prepared = prepare(home, port)
            # Imported once nothing stands in the way: this takes longer than all of the above.
            from zt.service.daemon import Daemon, Outcome

            outcome = uvloop.run(_live(Daemon(prepared)))
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


async def _live(daemon: "Daemon") -> "Outcome":
    loop = asyncio.get_running_loop()

    def ask_to_stop() -> None:
        # Whatever hangs, the process ends: the alarm is not handled on the loop.
        signal.signal(signal.SIGALRM, lambda number, frame: os._exit(0))
        signal.alarm(STOP_LIMIT_S)
        notify("STOPPING=1")
        daemon.stop()

    for number in STOP_SIGNALS:
        loop.add_signal_handler(number, ask_to_stop)
    loop.add_signal_handler(signal.SIGHUP, daemon.reload)
    loop.set_exception_handler(_report)
    try:
        return await daemon.run(lambda: notify("READY=1"))
    finally:
        signal.alarm(0)


def _report(loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
    """An exception in a callback is a bug: said in one line, with its trace at debug level."""
    error = context.get("exception")
    trace = error if isinstance(error, BaseException) else None
    log.error("%s: %r", context.get("message"), error)
    log.debug("trace", exc_info=trace)
