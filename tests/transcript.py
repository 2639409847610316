"""Messages the way the recorded data writes them, so that every field can be compared."""

from collections.abc import Callable
from typing import Any

from zt.protocol import messages as m
from zt.protocol import rules
from zt.protocol.credentials import Capability, Com, Ownership, Revocation, Tag
from zt.protocol.dictionary import Dictionary
from zt.protocol.identity import Identity
from zt.protocol.inet import ip_text
from zt.protocol.messages.network import Members
from zt.protocol.netconf import ConfigChunk
from zt.protocol.packet import ErrorCode, Verb
from zt.protocol.wire import Reader
from zt.protocol.world import World

ERROR_NAMES = {
    ErrorCode.OBJECT_NOT_FOUND: "OBJ_NOT_FOUND",
    ErrorCode.AUTHENTICATION_REQUIRED: "NETWORK_AUTHENTICATION_REQUIRED",
}
BLOBS = {"C", "CAP", "TAG", "COO", "S", "RT", "I", "R", "DNS"}
SIGNED = {"signature_type": 1, "extra": ""}

FindIdentity = Callable[[int], Identity | None]


def describe(verb: int, payload: bytes, find: FindIdentity) -> dict[str, Any]:
    """The fields of a payload (of a HELLO: unmasked). Every byte of it must have been read.

    Encoding what was decoded must give the payload again.
    """
    if verb not in m.BY_VERB or verb == Verb.NOP:
        return {"raw": payload.hex()}
    message = read_all(m.BY_VERB[verb], payload)
    if isinstance(message, m.Ok):
        head = {"in_re_verb": message.verb, "in_re_verb_name": Verb(message.verb).name}
        head["in_re_packet_id"] = f"{message.packet_id:016x}"
        kind = m.OK_BODIES[message.verb]
        return head | describe_ok(message.verb, read_all(kind, message.body), find)
    if isinstance(message, m.Error):
        return describe_error(message)
    return DESCRIBE[type(message)](message, find)


def read_all(kind: Any, payload: bytes) -> Any:
    reader = Reader(payload)
    message = kind.read(reader)
    assert reader.remaining == 0, f"{reader.remaining} bytes of {kind.__name__} not read"
    assert message.encode() == payload
    assert kind.decode(message.encode()) == message
    return message


def describe_ok(verb: int, body: Any, find: FindIdentity) -> dict[str, Any]:
    match body:
        case m.OkHello():
            return {
                "timestamp_echo": body.timestamp,
                **describe_version(body.version),
                "sent_to": str(body.seen_as),
                "worlds": [describe_world(world) for world in body.decode_worlds()],
            }
        case m.OkWhois():
            return {"identities": [str(identity) for identity in body.identities]}
        case m.Echo():
            out: dict[str, Any] = {"echo_payload": body.data.hex()}
            if len(body.data) == 16:
                received = read_all(m.ConfigReceived, body.data)
                out["if_reply_to_network_config"] = {
                    "network_id": str(received.nwid),
                    "config_update_id": f"{received.update_id:016x}",
                }
            return out
        case m.ExtFrameReceived():
            return {"network_id": str(body.nwid)}
        case ConfigChunk():
            return describe_chunk(body, find)
        case m.GatherResults():
            return describe_group(body) | describe_members(body.members)
        case m.MulticastFrameResults():
            flags = body.flags | (2 if body.members else 0) | (1 if body.com else 0)
            out = describe_group(body) | {"flags": flags}
            if body.com is not None:
                out["com"] = describe_com(body.com)
            return out | (describe_members(body.members) if body.members else {})
    raise AssertionError(f"OK to {verb} with {body}")


def describe_group(body: Any) -> dict[str, Any]:
    group = {"multicast_mac": str(body.group.mac), "adi": body.group.adi}
    return {"network_id": str(body.nwid)} | group


def describe_members(members: Members) -> dict[str, Any]:
    return {"total_known": members.total, "members": [str(a) for a in members.addresses]}


def describe_error(error: m.Error) -> dict[str, Any]:
    code = ErrorCode(error.code)
    out: dict[str, Any] = {
        "in_re_verb": error.verb,
        "in_re_verb_name": Verb(error.verb).name,
        "in_re_packet_id": f"{error.packet_id:016x}",
        "error_code": error.code,
        "error": ERROR_NAMES.get(code, code.name),
    }
    if code not in m.ERROR_BODIES:
        assert not error.body
        return out
    body = read_all(m.ERROR_BODIES[code], error.body)
    if isinstance(body, m.UnwantedMulticast):
        return out | describe_group(body)
    out["network_id"] = str(body.nwid)
    if isinstance(body, m.AuthenticationRequired) and body.data is not None:
        out["error_data"] = describe_dictionary(body.data)
    return out


def describe_dictionary(data: bytes) -> dict[str, str]:
    return {
        key: "hex:" + value.hex() if key in BLOBS else value.decode()
        for key, value in Dictionary.decode(data).items()
    }


def describe_version(version: m.Version) -> dict[str, Any]:
    return {
        "protocol_version": version.protocol,
        "software_version": f"{version.major}.{version.minor}.{version.revision}",
    }


def describe_world(world: World) -> dict[str, Any]:
    return {
        "type": world.type.name.lower(),
        "id": f"{world.id:016x}",
        "timestamp": world.timestamp,
        "update_key": world.update_key.hex(),
        "signature": world.signature.hex(),
        "roots": [
            {"identity": str(root.identity), "endpoints": [str(e) for e in root.endpoints]}
            for root in world.roots
        ],
        "self_signed_ok": world.verify(world.update_key),
    } | ({"dictionary": ""} if world.is_moon else {})


def describe_hello(hello: m.Hello, find: FindIdentity) -> dict[str, Any]:
    out = describe_version(hello.version)
    out |= {"timestamp": hello.timestamp, "identity": str(hello.identity)}
    if hello.sent_to is not None:
        out["sent_to"] = str(hello.sent_to)
    if hello.planet is not None:
        out["planet_id"] = f"{hello.planet.id:016x}"
        out["planet_timestamp"] = hello.planet.timestamp
    if hello.moons is not None:
        out["moons"] = [
            {"type": 127, "id": f"{moon.id:016x}", "timestamp": moon.timestamp}
            for moon in hello.moons
        ]
    return out


def describe_com(com: Com) -> dict[str, Any]:
    return {
        "qualifiers": [[q.id, f"{q.value:016x}", f"{q.max_delta:016x}"] for q in com.qualifiers],
        "signed_by": str(com.signer),
        "signature": com.signature.hex(),
    }


def describe_credential(value: Any) -> dict[str, Any]:
    out: dict[str, Any] = {"network_id": str(value.nwid), "id": value.id, **SIGNED}
    match value:
        case Capability():
            del out["signature_type"]
            return out | {
                "timestamp": value.timestamp,
                "rules": [
                    {"type": rule.type, "data": rule.encode()[2:].hex()}
                    for rule in rules.decode(value.rules)
                ],
                "max_custody": value.max_custody,
                "custody": [
                    {
                        "to": str(link.to),
                        "from": str(link.from_),
                        "signature_type": 1,
                        "signature": link.signature.hex(),
                    }
                    for link in value.custody
                ],
            }
        case Tag():
            out |= {"timestamp": value.timestamp, "value": value.value}
            out["issued_to"] = str(value.issued_to)
        case Ownership():
            out |= {"timestamp": value.timestamp, "flags": value.flags}
            out["things"] = [{"type": t.type, "value": t.value.hex()} for t in value.things]
            out["issued_to"] = str(value.issued_to)
        case Revocation():
            out |= {"credential_id": value.credential_id, "threshold": value.threshold}
            out |= {"flags": value.flags, "target": str(value.target)}
            out["credential_type"] = value.credential_type
    return out | {"signed_by": str(value.signer), "signature": value.signature.hex()}


def describe_credentials(message: m.NetworkCredentials, find: FindIdentity) -> dict[str, Any]:
    out: dict[str, Any] = {"coms": [describe_com(com) for com in message.coms]}
    names = ("capabilities", "tags", "revocations", "ownerships")
    for name in names[: message.parts - 1]:
        out[name] = [describe_credential(value) for value in getattr(message, name)]
    return out


def describe_chunk(chunk: ConfigChunk, find: FindIdentity) -> dict[str, Any]:
    controller = find(chunk.nwid.controller)
    assert controller is not None
    assert chunk.signature is not None
    out = {
        "network_id": str(chunk.nwid),
        "chunk_length": len(chunk.data),
        "chunk_data": chunk.data.hex(),
        "flags": chunk.flags,
        "config_update_id": f"{chunk.update_id:016x}",
        "total_length": chunk.total,
        "chunk_index": chunk.offset,
        "signature_type": 1,
        "signature": chunk.signature.hex(),
        "signature_ok": chunk.verify(controller),
    }
    if len(chunk.data) == chunk.total:
        out["dictionary"] = describe_dictionary(chunk.data)
    return out


def describe_request(message: m.NetworkConfigRequest, find: FindIdentity) -> dict[str, Any]:
    out: dict[str, Any] = {"network_id": str(message.nwid)}
    if message.metadata is not None:
        out["metadata"] = describe_dictionary(message.metadata)
        out |= {"have_revision": message.revision, "have_timestamp": message.timestamp}
    return out


def describe_frame(message: m.Frame, find: FindIdentity) -> dict[str, Any]:
    payload = {"ethertype": message.ethertype, "frame": message.payload.hex()}
    return {"network_id": str(message.nwid)} | payload


def describe_ext_frame(message: m.ExtFrame, find: FindIdentity) -> dict[str, Any]:
    out: dict[str, Any] = {
        "network_id": str(message.nwid),
        "flags": message.flags | (message.com is not None),
        "subtype": message.flags >> 1 & 7,
        "ack_requested": bool(message.flags & m.ExtFrame.ACKNOWLEDGE),
        "to": str(message.destination),
        "from": str(message.source),
        "ethertype": message.ethertype,
        "frame": message.payload.hex(),
    }
    return out | ({"com": describe_com(message.com)} if message.com is not None else {})


def describe_gather(message: m.MulticastGather, find: FindIdentity) -> dict[str, Any]:
    out: dict[str, Any] = {
        "network_id": str(message.nwid),
        "flags": message.flags | (message.com is not None),
        "mac": str(message.group.mac),
        "adi": message.group.adi,
        "gather_limit": message.limit,
    }
    return out | ({"com": describe_com(message.com)} if message.com is not None else {})


def describe_multicast(message: m.MulticastFrame, find: FindIdentity) -> dict[str, Any]:
    flags = message.flags
    out: dict[str, Any] = {
        "network_id": str(message.nwid),
        "to": str(message.group.mac),
        "adi": message.group.adi,
        "ethertype": message.ethertype,
        "frame": message.payload.hex(),
    }
    if message.com is not None:
        flags |= m.MulticastFrame.HAS_COM
        out["com"] = describe_com(message.com)
    if message.gather_limit is not None:
        flags |= m.MulticastFrame.HAS_LIMIT
        out["gather_limit"] = message.gather_limit
    if message.source is not None:
        flags |= m.MulticastFrame.HAS_SOURCE
        out["source_mac"] = str(message.source)
    return out | {"flags": flags}


def describe_likes(message: m.MulticastLike, find: FindIdentity) -> dict[str, Any]:
    return {
        "groups": [
            {"network_id": str(nwid), "mac": str(group.mac), "adi": group.adi}
            for nwid, group in message.groups
        ]
    }


def describe_push(message: m.PushDirectPaths, find: FindIdentity) -> dict[str, Any]:
    paths = [
        {
            "flags": path.flags,
            "address_type": path.address.version,
            "ext": path.extension.hex(),
            "raw": path.address.encode()[1:].hex(),
            "address": str(path.address),
        }
        for path in message.paths
    ]
    return {"count": len(paths), "paths": paths}


def describe_rendezvous(message: m.Rendezvous, find: FindIdentity) -> dict[str, Any]:
    return {
        "flags": message.flags,
        "with": str(message.peer),
        "port": message.address.port,
        "ip": ip_text(message.address.ip),
    }


DESCRIBE: dict[type, Callable[[Any, FindIdentity], dict[str, Any]]] = {
    m.Hello: describe_hello,
    m.Whois: lambda message, _: {"addresses": [str(a) for a in message.addresses]},
    m.Rendezvous: describe_rendezvous,
    m.Frame: describe_frame,
    m.ExtFrame: describe_ext_frame,
    m.Echo: lambda message, _: {"data": message.data.hex()},
    m.MulticastLike: describe_likes,
    m.NetworkCredentials: describe_credentials,
    m.NetworkConfigRequest: describe_request,
    ConfigChunk: describe_chunk,
    m.MulticastGather: describe_gather,
    m.MulticastFrame: describe_multicast,
    m.PushDirectPaths: describe_push,
    m.Ack: lambda message, _: {"bytes_received": message.size},
    m.QosMeasurement: lambda message, _: {
        "records": [
            {"packet_id": f"{record.packet_id:016x}", "holding_time_ms": record.holding_ms}
            for record in message.records
        ]
    },
    m.UserMessage: lambda message, _: {
        "type_id": f"{message.type:016x}",
        "data": message.data.hex(),
    },
    m.RemoteTrace: lambda message, _: {
        "traces": [describe_dictionary(d) for d in message.dictionaries]
    },
    m.PathNegotiationRequest: lambda message, _: {"utility": message.utility},
}
