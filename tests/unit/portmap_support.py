"""Fake routers for the tests of port mapping: NAT-PMP and PCP, and a UPnP gateway device."""

import asyncio
import ipaddress
import re
import socket
import struct
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from zt.protocol.address import Address
from zt.protocol.inet import InetAddress
from zt.service.netlink import Gateway
from zt.service.portmap.mapper import PortMapper
from zt.service.portmap.messages import PORT as SERVER_PORT

PORT = 41234
EXTERNAL = ipaddress.IPv4Address("44.66.9.9").packed
NONCE = bytes(range(12))
OURS = f"ZeroTier/a724a52773@{PORT}"
SSDP_GROUP = "239.255.255.250"


def nat_pmp_answer(operation: int, body: bytes, result: int = 0, version: int = 0) -> bytes:
    return struct.pack(">BBHI", version, 128 + operation, result, 7) + body


def pcp_answer(
    lifetime_s: int = 600,
    external: int = 40000,
    *,
    nonce: bytes = NONCE,
    internal: int = PORT,
    result: int = 0,
    ip: bytes = bytes(10) + b"\xff\xff" + EXTERNAL,
) -> bytes:
    head = struct.pack(">BBBBII12x", 2, 0x81, 0, result, lifetime_s, 7)
    return head + nonce + struct.pack(">B3xHH", 17, internal, external) + ip


class FakeGateway(asyncio.DatagramProtocol):
    """A router on loopback. `speaks` names its protocols; `noise` is sent before each answer."""

    def __init__(self, *speaks: str, noise: tuple[bytes, ...] = (), lose: int = 0) -> None:
        self.speaks = speaks
        self.noise = noise
        self.lose = lose
        self.lifetime_s = 600
        self.asked: list[bytes] = []
        self.mapped: dict[int, int] = {}  # internal -> external

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.asked.append(data)
        if self.lose:
            self.lose -= 1
            return
        for noise in self.noise:
            self.transport.sendto(noise, addr)
        answer = self.answer(data, addr)
        if answer:
            self.transport.sendto(answer, addr)

    def answer(self, data: bytes, addr: tuple[str, int]) -> bytes | None:
        if data[0] == 0 and "NAT-PMP" in self.speaks:
            if data[1] == 0:
                return nat_pmp_answer(0, EXTERNAL)
            internal, external, lifetime_s = struct.unpack_from(">HHI", data, 4)
            external = self.map(internal, external, lifetime_s)
            lifetime_s = min(lifetime_s, self.lifetime_s)
            return nat_pmp_answer(1, struct.pack(">HHI", internal, external, lifetime_s))
        if data[0] == 2 and "PCP" in self.speaks:
            (lifetime_s,) = struct.unpack_from(">I", data, 4)
            client, nonce = data[20:24], data[24:36]
            internal, external = struct.unpack_from(">HH", data, 40)
            if socket.inet_ntoa(client) != addr[0]:
                return pcp_answer(result=12, nonce=nonce, internal=internal)
            external = self.map(internal, external, lifetime_s)
            return pcp_answer(
                min(lifetime_s, self.lifetime_s), external, nonce=nonce, internal=internal
            )
        if self.speaks:
            return struct.pack(">BBBBI", 2 if "PCP" in self.speaks else 0, 0x80, 0, 1, 0) + bytes(
                16
            )
        return None

    def map(self, internal: int, external: int, lifetime_s: int) -> int:
        if not lifetime_s:
            return self.mapped.pop(internal, external)
        return self.mapped.setdefault(internal, external + 1)


DESCRIPTION = """<?xml version="1.0"?>
<root xmlns="urn:schemas-upnp-org:device-1-0"><specVersion><major>1</major><minor>0</minor>
</specVersion><device>
<deviceType>urn:schemas-upnp-org:device:InternetGatewayDevice:1</deviceType><deviceList><device>
<deviceType>urn:schemas-upnp-org:device:WANDevice:1</deviceType><deviceList><device>
<deviceType>urn:schemas-upnp-org:device:WANConnectionDevice:1</deviceType><serviceList><service>
<serviceType>urn:schemas-upnp-org:service:WANIPConnection:1</serviceType>
<controlURL>/control</controlURL><eventSubURL>/events</eventSubURL><SCPDURL>/scpd.xml</SCPDURL>
</service></serviceList></device></deviceList></device></deviceList></device></root>"""


class FakeIgd:
    """SSDP and SOAP. `hostile` is served in place of the description."""

    def __init__(self, ip: str = "127.0.0.1") -> None:
        self.ip = ip
        self.mapped: dict[int, tuple[str, int, str]] = {}
        self.hostile: Iterator[bytes] | None = None
        self.external = "44.66.9.9"
        igd = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if igd.hostile is None:
                    self.reply(200, DESCRIPTION)
                    return
                self.send_response(200)
                self.end_headers()
                try:
                    for piece in igd.hostile:
                        self.wfile.write(piece)
                except OSError:
                    igd.cut_off.set()

            def do_POST(self) -> None:
                size = int(self.headers["Content-Length"])
                action = self.headers["SOAPAction"].strip('"').rpartition("#")[2]
                fields = dict(re.findall(r"<(New\w+)>([^<]*)<", self.rfile.read(size).decode()))
                code, result = igd.act(action, fields)
                self.reply(500 if code else 200, igd.envelope(action, code, result))

            def reply(self, status: int, text: str) -> None:
                self.send_response(status)
                self.send_header("Content-Type", "text/xml")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *args: object) -> None: ...

        self.cut_off = threading.Event()
        self.http = ThreadingHTTPServer((ip, 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://{ip}:{self.http.server_address[1]}/root.xml"
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()

    def open_ssdp(self) -> socket.socket:
        """A socket that gets the searches of whatever interface leads to the router's address."""
        ssdp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        ssdp.bind((SSDP_GROUP, 1900))
        group = socket.inet_aton(SSDP_GROUP) + socket.inet_aton(self.ip)
        ssdp.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group)
        return ssdp

    def answer_search(self, ssdp: socket.socket) -> None:
        """Waits for one search for an Internet gateway device."""
        while True:
            data, source = ssdp.recvfrom(2048)
            target = re.search(rb"\r\nST: *(\S+)", data)
            if target and b"InternetGatewayDevice:1" in target[1]:
                head = f"HTTP/1.1 200 OK\r\nLOCATION: {self.url}\r\nUSN: uuid:1\r\nST: "
                ssdp.sendto(head.encode() + target[1] + b"\r\n\r\n", source)
                return

    def act(self, action: str, fields: dict[str, str]) -> tuple[int, dict[str, str]]:
        if self.hostile is not None:
            return 401, {}
        port = int(fields.get("NewExternalPort", 0))
        if action == "GetExternalIPAddress":
            return 0, {"NewExternalIPAddress": self.external}
        if action == "GetStatusInfo":
            status = {"NewConnectionStatus": "Connected", "NewLastConnectionError": "ERROR_NONE"}
            return 0, status | {"NewUptime": "100"}
        if action == "GetSpecificPortMappingEntry":
            if port not in self.mapped:
                return 714, {}
            host, internal, text = self.mapped[port]
            return 0, {
                "NewInternalPort": str(internal),
                "NewInternalClient": host,
                "NewEnabled": "1",
                "NewPortMappingDescription": text,
                "NewLeaseDuration": "0",
            }
        if action == "AddPortMapping":
            if port in self.mapped:
                return 718, {}
            assert fields["NewProtocol"] == "UDP"
            assert fields["NewLeaseDuration"] == "0"
            text = fields["NewPortMappingDescription"]
            self.mapped[port] = (fields["NewInternalClient"], int(fields["NewInternalPort"]), text)
            return 0, {}
        if action == "DeletePortMapping":
            return (0, {}) if self.mapped.pop(port, None) else (714, {})
        return 401, {}

    @staticmethod
    def envelope(action: str, code: int, result: dict[str, str]) -> str:
        if code:
            body = (
                "<s:Fault><faultcode>s:Client</faultcode><faultstring>UPnPError</faultstring>"
                f"<detail><UPnPError><errorCode>{code}</errorCode></UPnPError></detail></s:Fault>"
            )
        else:
            inner = "".join(f"<{name}>{value}</{name}>" for name, value in result.items())
            service = "urn:schemas-upnp-org:service:WANIPConnection:1"
            body = f'<u:{action}Response xmlns:u="{service}">{inner}</u:{action}Response>'
        return (
            '<?xml version="1.0"?><s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/">'
            f"<s:Body>{body}</s:Body></s:Envelope>"
        )


class Mapped:
    """A mapper and what it told."""

    def __init__(
        self,
        gateways: Callable[[], Awaitable[Sequence[Gateway]]],
        server_port: int = SERVER_PORT,
    ) -> None:
        self.told: asyncio.Queue[InetAddress | None] = asyncio.Queue()
        self.mapper = PortMapper(
            Address(0xA724A52773),
            PORT,
            gateways=gateways,
            changed=self.told.put_nowait,
            now_ms=lambda: time.monotonic_ns() // 1_000_000,
            server_port=server_port,
        )
