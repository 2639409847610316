"""Counts of packets that the control plane sent and received, by verb and error code."""

from zt.protocol.packet import ErrorCode, Verb

_VERBS: dict[int, str] = {verb: verb.name.lower() for verb in Verb}
_VERBS[Verb.QOS_MEASUREMENT] = "qos"
_ERRORS: dict[int, str] = {
    ErrorCode.OBJECT_NOT_FOUND: "obj_not_found",
    ErrorCode.IDENTITY_COLLISION: "identity_collision",
    ErrorCode.UNSUPPORTED_OPERATION: "unsupported_operation",
    ErrorCode.NEED_MEMBERSHIP_CERTIFICATE: "need_membership_certificate",
    ErrorCode.NETWORK_ACCESS_DENIED: "network_access_denied",
    ErrorCode.UNWANTED_MULTICAST: "unwanted_multicast",
    ErrorCode.AUTHENTICATION_REQUIRED: "authentication_required",
}
_RECEIVED = {verb: f"packet.rx.{name}" for verb, name in _VERBS.items()}
_SENT = {verb: f"packet.tx.{name}" for verb, name in _VERBS.items()}
OTHER_ERROR = "internal_server_error"
REPEAT = "vl1.drop.repeat"


class Counters:
    """Keys are `packet.rx.<verb>`, `packet.tx.<verb>`, `packet_error.rx.<code>` and so on;
    `vl1.drop.repeat` are packets that came again."""

    def __init__(self) -> None:
        self._counts = dict.fromkeys((*_RECEIVED.values(), *_SENT.values()), 0)
        for way in ("rx", "tx"):
            for error in (*_ERRORS.values(), OTHER_ERROR):
                self._counts[f"packet_error.{way}.{error}"] = 0
        self._counts[REPEAT] = 0

    def received(self, verb: int) -> None:
        name = _RECEIVED.get(verb)
        if name is not None:
            self._counts[name] += 1

    def sent(self, verb: int, count: int = 1) -> None:
        self._counts[_SENT[verb]] += count

    def error_received(self, code: int) -> None:
        self._counts[f"packet_error.rx.{_ERRORS.get(code, OTHER_ERROR)}"] += 1

    def error_sent(self, code: int) -> None:
        self._counts[f"packet_error.tx.{_ERRORS.get(code, OTHER_ERROR)}"] += 1

    def repeated(self) -> None:
        self._counts[REPEAT] += 1

    def as_dict(self) -> dict[str, int]:
        return dict(self._counts)
