"""What travels inside packets: one dataclass for every verb and every OK and ERROR body.

The payload is everything from byte 28 on, after opening and decompression (chapter 02, 9). Each
class has ``encode() -> bytes`` and ``decode(payload)``, which raises `DecodeError` for what a
receiver drops. Fields appear in wire order wherever defaults allow.
"""

from collections.abc import Mapping

from zt.protocol.messages.network import (
    ConfigReceived,
    ExtFrame,
    ExtFrameReceived,
    Frame,
    GatherResults,
    Members,
    MulticastFrame,
    MulticastFrameResults,
    MulticastGather,
    MulticastLike,
    NetworkConfigRequest,
    NetworkCredentials,
)
from zt.protocol.messages.node import (
    OWN_VERSION,
    Ack,
    DirectPath,
    Echo,
    Hello,
    HelloHead,
    Nop,
    OkHello,
    OkWhois,
    PathNegotiationRequest,
    PushDirectPaths,
    QosMeasurement,
    QosRecord,
    RemoteTrace,
    Rendezvous,
    UserMessage,
    Version,
    Whois,
    read_moons,
)
from zt.protocol.messages.replies import (
    AuthenticationRequired,
    Error,
    NetworkError,
    Ok,
    UnwantedMulticast,
)
from zt.protocol.netconf import ConfigChunk
from zt.protocol.packet import ErrorCode, Verb
from zt.protocol.wire import Value

BY_VERB: Mapping[int, type[Value]] = {
    Verb.NOP: Nop,
    Verb.HELLO: Hello,
    Verb.ERROR: Error,
    Verb.OK: Ok,
    Verb.WHOIS: Whois,
    Verb.RENDEZVOUS: Rendezvous,
    Verb.FRAME: Frame,
    Verb.EXT_FRAME: ExtFrame,
    Verb.ECHO: Echo,
    Verb.MULTICAST_LIKE: MulticastLike,
    Verb.NETWORK_CREDENTIALS: NetworkCredentials,
    Verb.NETWORK_CONFIG_REQUEST: NetworkConfigRequest,
    Verb.NETWORK_CONFIG: ConfigChunk,
    Verb.MULTICAST_GATHER: MulticastGather,
    Verb.MULTICAST_FRAME: MulticastFrame,
    Verb.PUSH_DIRECT_PATHS: PushDirectPaths,
    Verb.ACK: Ack,
    Verb.QOS_MEASUREMENT: QosMeasurement,
    Verb.USER_MESSAGE: UserMessage,
    Verb.REMOTE_TRACE: RemoteTrace,
    Verb.PATH_NEGOTIATION_REQUEST: PathNegotiationRequest,
}

OK_BODIES: Mapping[int, type[Value]] = {
    Verb.HELLO: OkHello,
    Verb.WHOIS: OkWhois,
    Verb.EXT_FRAME: ExtFrameReceived,
    Verb.ECHO: Echo,
    Verb.NETWORK_CONFIG_REQUEST: ConfigChunk,
    Verb.NETWORK_CONFIG: ConfigReceived,
    Verb.MULTICAST_GATHER: GatherResults,
    Verb.MULTICAST_FRAME: MulticastFrameResults,
}
"""By the verb answered. The OK to NETWORK_CONFIG names ECHO instead (chapter 02, 9.12)."""

ERROR_BODIES: Mapping[int, type[Value]] = {
    ErrorCode.OBJECT_NOT_FOUND: NetworkError,
    ErrorCode.UNSUPPORTED_OPERATION: NetworkError,
    ErrorCode.NEED_MEMBERSHIP_CERTIFICATE: NetworkError,
    ErrorCode.NETWORK_ACCESS_DENIED: NetworkError,
    ErrorCode.UNWANTED_MULTICAST: UnwantedMulticast,
    ErrorCode.AUTHENTICATION_REQUIRED: AuthenticationRequired,
}

__all__ = [
    "BY_VERB",
    "ERROR_BODIES",
    "OK_BODIES",
    "OWN_VERSION",
    "Ack",
    "AuthenticationRequired",
    "ConfigChunk",
    "ConfigReceived",
    "DirectPath",
    "Echo",
    "Error",
    "ExtFrame",
    "ExtFrameReceived",
    "Frame",
    "GatherResults",
    "Hello",
    "HelloHead",
    "Members",
    "MulticastFrame",
    "MulticastFrameResults",
    "MulticastGather",
    "MulticastLike",
    "NetworkConfigRequest",
    "NetworkCredentials",
    "NetworkError",
    "Nop",
    "Ok",
    "OkHello",
    "OkWhois",
    "PathNegotiationRequest",
    "PushDirectPaths",
    "QosMeasurement",
    "QosRecord",
    "RemoteTrace",
    "Rendezvous",
    "UnwantedMulticast",
    "UserMessage",
    "Version",
    "Whois",
    "read_moons",
]
