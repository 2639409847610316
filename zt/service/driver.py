"""Drives the sans-I/O node: events in, actions out, one timer.

    pump eventfd ──► punts ──► node.punt ─┐
    TCP tunnel ──► switch ──► punts ──────┤
    one timer at node.deadline() ─────────┼──► node.actions() ──► pump, files, networks, controller
    API, sockets, TAP groups, networks ───┘

Everything runs on the event loop's thread. After each event `drain` carries out the actions and
arms the timer again, so the node never waits for more than the loop itself.
"""

import asyncio
import logging
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from zt._fast import switch as kinds
from zt._fast.switch import Punt, Switch
from zt.protocol.inet import InetAddress, Scope
from zt.service.capture import Capture
from zt.service.clock import Clock
from zt.service.home import Home
from zt.service.moderation import Found, Moderation
from zt.service.tcprelay.client import Tunnel
from zt.service.tcprelay.records import Relayed
from zt.service.trace import Tracing
from zt.service.validation import Validator
from zt.vl1.actions import (
    ALL_SOCKETS,
    TUNNEL,
    Action,
    ConfigRequest,
    Dropped,
    Event,
    Frame,
    Load,
    NetworkChanged,
    NetworkGone,
    RemoteTrace,
    Send,
    Store,
    UserMessage,
    Validate,
)

if TYPE_CHECKING:
    from zt.node import Node

log = logging.getLogger("zt.node")

MAX_VALIDATIONS = 64
"""Identity checks waiting at most; beyond that they are refused, which costs a stranger a retry."""
MAX_ROUNDS = 1000
"""Actions may cause actions (a Load answered at once); a circle of them must not hang the loop."""
AUTHENTIC = frozenset((kinds.PACKET, kinds.TRUSTED, kinds.RECEIVED))
URGENT = frozenset((kinds.FRAME, kinds.RECEIVED, kinds.RELAY, kinds.SEND))
"""Punts that somebody's frames wait for."""


class Driver:
    """Owns the timer and the pump's eventfd; `start` and `stop` frame its life."""

    def __init__(
        self,
        node: "Node",
        switch: Switch,
        pump: Any,
        home: Home,
        clock: Clock,
        *,
        network_changed: Callable[[Any], None],
        config_request: Callable[[ConfigRequest], None],
        event: Callable[[Event], None],
        capture: Capture,
        tunnel: Tunnel,
        tracing: Tracing,
    ) -> None:
        self._node = node
        self._switch = switch
        self._pump = pump
        self._home = home
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._moderation = Moderation(self._loop, pump.event_fd, self._punts)
        self._timer: asyncio.TimerHandle | None = None
        self._due_ms = 0  # when it fires
        self._validator = Validator(self._loop)
        self._validating = 0
        self._draining = False
        self._stopped = False
        self._network_changed = network_changed
        self._capture = capture
        self._tunnel = tunnel
        self._tracing = tracing
        self.counters = {"punts": 0, "actions": 0, "validations": 0, "validations_refused": 0}
        self._carry_out: dict[type[Action], Callable[[Any], None]] = {
            Send: self._send,
            Frame: self._frame,
            NetworkChanged: self._changed,
            NetworkGone: self._changed,
            Store: self._store,
            Load: self._load,
            ConfigRequest: config_request,
            Validate: self._validate,
            UserMessage: lambda message: None,
            RemoteTrace: tracing.remote,
            Dropped: tracing.dropped_by_node,
            Event: event,
        }

    def start(self) -> None:
        self._moderation.start()
        self.tick()

    def stop(self) -> None:
        """No event reaches the node after this."""
        self._stopped = True
        self._moderation.stop()
        if self._timer is not None:
            self._timer.cancel()
        self._validator.stop()

    def tick(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._node.timer(self._clock.now_ms())
        self.drain()

    def drain(self) -> None:
        """Carry out what the node wants done, in order, and arm the timer for its next deadline."""
        if self._draining:
            return  # called from inside of an action: the loop below will see its consequences
        self._draining = True
        try:
            for _ in range(MAX_ROUNDS):
                actions = self._node.actions()
                if not actions:
                    break
                for action in actions:
                    self._carry_out[type(action)](action)
                self.counters["actions"] += len(actions)
            else:
                log.error("the node keeps producing actions; going on at the next event")
        finally:
            self._draining = False
        self._arm()

    def _arm(self) -> None:
        """The timer moves only when the deadline comes closer: most events change nothing, and a
        timer that is early does no harm."""
        if self._stopped:
            return
        due_ms = self._node.deadline()
        if self._timer is not None:
            if due_ms >= self._due_ms:
                return
            self._timer.cancel()
        self._due_ms = due_ms
        delay_ms = max(due_ms - self._clock.now_ms(), 0)
        self._timer = self._loop.call_later(delay_ms / 1000, self.tick)

    # --- events ------------------------------------------------------------------------------

    def _punts(self) -> Found:
        with suppress(BlockingIOError):
            os.eventfd_read(self._pump.event_fd)
        punts = self._pump.punts()
        if not punts:
            return Found.NOTHING
        now_ms = self._clock.now_ms()
        found = Found.PATIENT
        for punt in punts:
            if punt.kind in URGENT:
                found = Found.URGENT
            if punt.kind == kinds.SEND:
                self._transmit(punt.socket, punt.ip, punt.port, punt.data)
                continue
            if punt.kind == kinds.DROPPED:
                self._tracing.dropped_by_plane(punt)
                continue
            if punt.kind in AUTHENTIC:
                self._heard(punt)
            if self._capture.active:
                self._capture.received(punt)
            self._node.punt(punt, now_ms)
        self.counters["punts"] += len(punts)
        self.drain()
        return found

    def _heard(self, punt: Punt) -> None:
        """Does UDP work? (ch. 03, 8.2)"""
        if punt.socket != TUNNEL and InetAddress(punt.ip).scope is Scope.GLOBAL:
            self._tunnel.heard()

    def tunneled(self, packets: Iterable[Relayed]) -> None:
        """Datagrams from the TCP relay take the way of those from a UDP socket. The pump writes
        the frames in them to the TAPs; what else they hold comes back as punts."""
        now_ms = self._clock.now_ms()
        for ip, port, datagram in packets:
            self._switch.datagram(TUNNEL, ip, port, datagram, now_ms)
        self._punts()

    # --- actions -----------------------------------------------------------------------------

    def _send(self, action: Send) -> None:
        if self._capture.active:
            self._capture.sent(action)
        self._transmit(action.socket, action.ip, action.port, action.data, action.ttl)

    def _transmit(self, socket: int, ip: bytes, port: int, datagram: bytes, ttl: int = 0) -> None:
        if self._tunnel.send(ip, port, datagram):
            if socket == TUNNEL:
                socket = ALL_SOCKETS  # as for paths of closed sockets (ch. 03, 5.4)
            self._pump.send(socket, ip, port, datagram, ttl)

    def _frame(self, action: Frame) -> None:
        self._pump.write_frame(int(action.nwid), action.data)

    def _changed(self, action: NetworkChanged | NetworkGone) -> None:
        self._network_changed(action.nwid)

    def _store(self, action: Store) -> None:
        try:
            self._home.store(action.name, action.data)
        except OSError as error:
            log.error("%s cannot be written: %s", self._home / action.name, error.strerror)

    def _load(self, action: Load) -> None:
        data = self._home.load(action.name)
        if data is not None:
            self._node.stored(action.name, data, self._clock.now_ms())

    def _validate(self, action: Validate) -> None:
        if not self._node.awaits(action.ticket):
            return  # a file that was loaded meanwhile made it needless
        if self._validating >= MAX_VALIDATIONS:
            self.counters["validations_refused"] += 1
            self._node.validated(action.ticket, False, self._clock.now_ms())
            return
        self._validating += 1
        self.counters["validations"] += 1
        future = self._validator.validate(action.identity)
        future.add_done_callback(lambda done: self._validated(action.ticket, done))

    def _validated(self, ticket: int, done: "asyncio.Future[bool]") -> None:
        self._validating -= 1
        if self._stopped or done.cancelled():
            return
        good = done.exception() is None and done.result()
        self._node.validated(ticket, good, self._clock.now_ms())
        self.drain()
