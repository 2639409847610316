"""One node alone under a clock driven by hand: datagrams in, everything that it does out."""

from collections.abc import Iterable, Sequence
from random import Random

from zt._fast.switch import Switch
from zt._fast.tables import Tables
from zt.node import Node
from zt.protocol.identity import Identity
from zt.protocol.inet import InetAddress
from zt.protocol.world import World
from zt.vl1.actions import Action, Send, Validate
from zt.vl1.status import LocalSocket, Settings

SOCKET = 1


class SingleNode:
    """A node bound to one address. Its peers are played by the test."""

    def __init__(
        self,
        me: Identity,
        planet: World,
        here: InetAddress,
        now_ms: int,
        *,
        moons: Iterable[World] = (),
        settings: Settings | None = None,
        seed: int = 1,
    ) -> None:
        self.me = me
        self.now_ms = now_ms
        self.switch = Switch(Tables(me.address), seed=bytes((seed,)) * 32)
        self.node = Node(
            me,
            self.switch,
            now_ms=now_ms,
            random=Random(seed).randbytes,
            planet=planet,
            moons=moons,
            settings=settings,
        )
        self.node.sockets_changed([LocalSocket(SOCKET, here)], now_ms)
        self.settle()

    def advance(self, until_ms: int) -> Sequence[Action]:
        """Runs the timers up to an instant."""
        done: list[Action] = []
        while self.node.deadline() <= until_ms:
            self.now_ms = max(self.now_ms, self.node.deadline())
            self.node.timer(self.now_ms)
            done += self.settle()
        self.now_ms = until_ms
        return done

    def receive(self, source: InetAddress, datagram: bytes) -> list[Action]:
        """What a datagram makes it do at once."""
        self.switch.datagram(SOCKET, source.ip, source.port, datagram, self.now_ms)
        return self.settle()

    def settle(self) -> list[Action]:
        """Everything that it does now; what the data plane sends is among it as `Send`."""
        done: list[Action] = []
        while True:
            for punt in self.switch.take_punts():
                self.node.punt(punt, self.now_ms)
            actions = self.node.actions()
            datagrams = self.switch.take_datagrams()
            if not actions and not datagrams:
                return done
            for action in actions:
                if isinstance(action, Validate):
                    self.node.validated(action.ticket, action.identity.validate(), self.now_ms)
                done.append(action)
            done += [Send(socket, ip, port, data) for socket, ip, port, data in datagrams]
