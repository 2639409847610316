"""The rules engine of ch. 04, 8, once more: slow and plain, to compare the fast one with.

Nothing is shared with `zt._fast.filter`: rules are decoded per evaluation, headers are looked at
anew by every match, and every entry is visited.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

SIZES = {
    **dict.fromkeys((0, 1, 5, 6), 0), **dict.fromkeys((2, 3, 4), 14),
    24: 5, 25: 5, 26: 2, 27: 1, 28: 1, 29: 6, 30: 6, 31: 5, 32: 5, 33: 17, 34: 17, 35: 3, 36: 1,
    37: 2, 38: 3, 39: 4, 40: 4, 41: 8, 42: 4, 43: 4, **dict.fromkeys(range(44, 51), 8), 51: 19,
}  # fmt: skip


@dataclass(frozen=True)
class Side:
    """What one side holds: capabilities and tags by ID, things of its ownership certificates."""

    capabilities: dict[int, bytes] = field(default_factory=dict)
    tags: dict[int, int] = field(default_factory=dict)
    things: Sequence[tuple[int, bytes]] = ()


@dataclass(frozen=True)
class Frame:
    source: int
    dest: int
    source_mac: int
    dest_mac: int
    ethertype: int
    payload: bytes
    vlan: int = 0


@dataclass(frozen=True)
class Twin:
    address: int
    rules: bytes
    own: Side = field(default_factory=Side)
    exempt: Sequence[bytes] = ()
    unsupported: bool = False

    def outbound(
        self, frame: Frame, remote: Side | None, *, no_tee: bool = False, random: int = 1
    ) -> tuple[int, str, list[tuple[int, int, int]]]:
        return self.judge(frame, remote, self.own, False, no_tee, random)

    def inbound(
        self, frame: Frame, remote: Side | None, *, random: int = 1
    ) -> tuple[int, str, list[tuple[int, int, int]]]:
        return self.judge(frame, remote, remote or Side(), True, False, random)

    def judge(self, frame, remote, sender, inbound, no_tee, random):
        """(result, reason, copies as (address, length, EXT_FRAME flags)); 8.9 and 8.10."""
        draw = numbers(random)
        lists = [(self.rules, 1024)]
        lists += [(sender.capabilities[id], 64) for id in sorted(sender.capabilities)]
        base_copy = None
        for n, (table, limit) in enumerate(lists):
            outcome, dest, copy = self.evaluate(table, limit, frame, remote, inbound, draw)
            if n == 0:
                base_copy, copy = copy, None
                if outcome == "drop":
                    return 0, "dropped", []
            elif outcome == "drop":
                continue
            if outcome == "none":
                continue
            copies = [] if no_tee else [c for c in (copy, base_copy) if c]
            if outcome == "redirect":
                copies.append((dest, len(frame.payload), 0x0A if inbound else 0x04))
                return 0, "redirected", copies
            return 2 if inbound and outcome == "super" else 1, "accepted", copies
        return 0, "unmatched", []

    def evaluate(self, table, limit, frame, remote, inbound, draw):
        """One list (8.2): (outcome, destination, copy)."""
        good, skip, special = True, False, False
        copy = None
        for kind, invert, alternative, data in entries(table, limit):
            if kind <= 15:
                target = number(data[:8]) & 0xFFFFFFFFFF if kind in (2, 3, 4) else None
                if not good:
                    if inbound and target == self.address:
                        special = True
                    good = True
                    continue
                if kind == 0:
                    if not skip:
                        return "drop", frame.dest, None
                    skip = False
                elif kind == 1:
                    return "super" if special else "accept", frame.dest, copy
                elif kind == 6:
                    return "accept", frame.dest, copy
                elif kind == 5:
                    return "none", frame.dest, copy
                elif target is None or target == frame.source:
                    continue
                elif target == self.address:
                    if inbound:
                        return "super", frame.dest, copy
                elif target == frame.dest:
                    continue
                elif kind == 4:
                    return "redirect", target, copy
                elif target:
                    size = number(data[12:14])
                    length = min(size, len(frame.payload)) if size else len(frame.payload)
                    flags = {2: (0x02, 0x08), 3: (0x16, 0x1C)}[kind][inbound]
                    copy = (target, length, flags)
                else:
                    copy = None
                continue
            if not good and not alternative:
                continue
            found = self.match(kind, data, frame, remote, inbound, special, draw)
            if found == "yes, the other side decides":
                skip, found = True, "yes"
            value = found in (True, "yes")
            if isinstance(found, bool) and invert:
                value = not value
            good = good or value if alternative else good and value
        return "none", frame.dest, copy

    def match(self, kind, data, frame, remote, inbound, special, draw):
        """8.3: True or False where NOT applies, "yes" or "no" where it does not."""
        p = frame.payload
        v4 = frame.ethertype == 0x0800 and len(p) >= 20
        v6 = frame.ethertype == 0x86DD and len(p) >= 40
        proto, h = upper(frame)
        match kind:
            case 24:
                return number(data) == frame.source
            case 25:
                return number(data) == frame.dest
            case 26:
                return number(data) == frame.vlan
            case 27 | 28:
                return data[0] == 0
            case 29:
                return number(data) == frame.source_mac
            case 30:
                return number(data) == frame.dest_mac
            case 31 | 32:
                if not v4:
                    return "no"
                shift = 32 - min(data[4], 32)
                ip = p[12:16] if kind == 31 else p[16:20]
                return number(ip) >> shift == number(data[:4]) >> shift
            case 33 | 34:
                if not v6:
                    return "no"
                shift = 128 - min(data[16], 128)
                ip = p[8:24] if kind == 33 else p[24:40]
                return number(ip) >> shift << shift == number(data[:16])
            case 35:
                if not v4 and not v6:
                    return "no"
                tos = p[1] if v4 else (p[0] << 4 & 0xF0) | p[1] >> 4
                return data[1] <= tos & data[0] <= data[2]
            case 36:
                return "no" if proto is None else data[0] == proto
            case 37:
                return number(data) == frame.ethertype
            case 38:
                if proto != (1 if v4 else 0x3A) or len(p) < h + 2 or data[0] != p[h]:
                    return "no"
                return data[1] == p[h + 1] if data[2] & 1 else "yes"
            case 39 | 40:
                if proto is None:
                    return "no"
                if proto not in (6, 17, 0x84, 0x88) or len(p) <= h + 4:
                    return False
                at = h if kind == 39 else h + 2
                port = number(p[at : at + 2])
                if v6 and port == 0:
                    return False
                return number(data[:2]) <= port <= number(data[2:4])
            case 41:
                return bool(self.characteristics(frame, remote, inbound) & number(data))
            case 42:
                return number(data[:2]) <= len(p) <= number(data[2:4])
            case 43:
                return next(draw) <= number(data)
            case 44 | 45 | 46 | 47 | 48 | 49 | 50:
                return self.tags(kind, data, remote, inbound, special)
            case 51:
                first = number(data[:8])
                last = (first + (number(data[8:16]) - first) % 2**32) % 2**64
                return first <= integer(p, number(data[16:18]), data[18]) <= last
        return self.unsupported

    def tags(self, kind, data, remote, inbound, special):
        """8.7."""
        tag, value = number(data[:4]), number(data[4:8])
        ours = self.own.tags.get(tag)
        theirs = remote.tags.get(tag) if remote else None
        defer = "yes, the other side decides"
        if kind >= 49:
            if special:
                return defer
            if (kind == 49 and inbound) or (kind == 50 and not inbound):
                if theirs is not None:
                    return theirs == value
                return "no" if kind == 49 else defer
            return "no" if ours is None else ours == value
        if ours is None:
            return "no"
        if theirs is None:
            return "no" if inbound and not special else defer
        return {
            44: abs(ours - theirs) <= value,
            45: ours & theirs == value,
            46: ours | theirs == value,
            47: ours ^ theirs == value,
            48: ours == theirs == value,
        }[kind]

    def characteristics(self, frame, remote, inbound):
        """8.5 and 8.6."""
        p = frame.payload
        bits = 1 << 63 if inbound else 0
        if frame.dest_mac >> 40 & 1:
            bits |= 1 << 62
        if frame.dest_mac == 0xFFFFFFFFFFFF:
            bits |= 1 << 61
        source = None
        if frame.ethertype == 0x0800 and len(p) >= 20:
            source = (2, p[12:16])
        elif frame.ethertype == 0x0806 and len(p) >= 28:
            source = (2, p[14:18])
        elif frame.ethertype == 0x86DD and len(p) >= 40:
            source = (3, p[8:24])
            if len(p) >= 64 and p[6] == 0x3A and p[40] == 0x87:
                source = None
                bits |= 1 << 60
            elif len(p) >= 64 and p[6] == 0x3A and p[40] == 0x88:
                source = (3, p[48:64])
        things = (remote.things if remote else ()) if inbound else self.own.things
        owned = {(kind, value[: {1: 6, 2: 4, 3: 16}.get(kind, 0)]) for kind, value in things}
        if source in owned:
            bits |= 1 << 60
        if (1, frame.source_mac.to_bytes(6, "big")) in owned:
            bits |= 1 << 59
        if inbound and source and source[0] == 3 and source[1].startswith(tuple(self.exempt)):
            bits |= 1 << 60
        proto, h = upper(frame)
        if proto == 6 and (frame.ethertype == 0x0800 or len(p) > h + 14):
            flags = (p + bytes(64))[h + 12 : h + 14] if len(p) > h + 12 else b"\0\0"
            bits |= number(flags) & 0xFFF
        return bits


def number(data: bytes) -> int:
    return int.from_bytes(data, "big")


def entries(table: bytes, limit: int) -> Iterator[tuple[int, bool, bool, bytes]]:
    """(type, NOT, OR, data) of each entry (8.1)."""
    at = 0
    for _ in range(limit):
        if at >= len(table):
            return
        first, length = table[at], table[at + 1]
        size = SIZES.get(first & 0x3F, 0)
        yield first & 0x3F, bool(first & 0x80), bool(first & 0x40), table[at + 2 : at + 2 + size]
        at += 2 + length


def upper(frame: Frame) -> tuple[int | None, int]:
    """Protocol above IP, None if there is none to be seen, and where its header begins (8.4)."""
    p = frame.payload
    if frame.ethertype == 0x0800 and len(p) >= 20:
        return p[9], p[0] % 16 * 4
    if frame.ethertype == 0x86DD and len(p) >= 40:
        proto, at = p[6], 40
        while at <= len(p):
            if proto not in (0, 43, 60, 135):
                return proto, at
            if at + 8 > len(p):
                break
            proto, at = p[at], at + 8 + 8 * p[at + 1]
    return None, 0


def integer(p: bytes, index: int, form: int) -> int:
    """8.8."""
    bits = form % 64 + 1
    size = (bits + 7) // 8
    if form & 0x80:
        data = p[index : index + size]
        return int.from_bytes(data, "little") >> (8 * size - bits) if len(data) == size else 0
    data = p[index + 8 - size : index + 8]
    return number(data) % 2**bits if len(data) == size else 0


def numbers(state: int) -> Iterator[int]:
    """What MATCH_RANDOM draws: the lower half of an xorshift64 state before each step."""
    while True:
        yield state & 0xFFFFFFFF
        state ^= state << 13 & 0xFFFFFFFFFFFFFFFF
        state ^= state >> 7
        state ^= state << 17 & 0xFFFFFFFFFFFFFFFF
