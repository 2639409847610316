"""VL1: peers, paths, roots, NAT traversal, relays. Time and bytes in, actions out."""

from zt.vl1.core import Vl1
from zt.vl1.packet import DROPPED, HANDLED, TRUSTED, WAIT, Packet, Result

__all__ = ["DROPPED", "HANDLED", "TRUSTED", "WAIT", "Packet", "Result", "Vl1"]
