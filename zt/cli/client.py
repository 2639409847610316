"""One request to the local API (ch. 06, 4.3). Only `socket`: start-up time is what users feel."""

import socket
from collections.abc import Iterator

TIMEOUT_S = 60.0
ANSWER_LIMIT = 16 << 20


class Unreachable(Exception):
    """No answer at all; the text is the reason as users see it, possibly empty."""


class Refused(Exception):
    """An answer that is no stream; the text is its status."""


class Client:
    """Where the service is and what opens it."""

    def __init__(self, host: str, port: int, token: str) -> None:
        self.host = host
        self.port = port
        self.token = token

    def request(self, method: str, path: str, body: str | None = None) -> tuple[int, str]:
        """Status and body of the answer. Raises Unreachable."""
        headers = []
        data = b""
        if body is not None:
            data = body.encode()
            headers = [f"Content-Length: {len(data)}", "Content-Type: application/json"]
        headers.append(f"X-ZT1-Auth: {self.token}")
        head = "\r\n".join([f"{method} {path} HTTP/1.1", *headers, "", ""])
        try:
            connection = socket.create_connection((self.host, self.port), TIMEOUT_S)
        except TimeoutError:
            raise Unreachable("timed out") from None
        except OSError:
            raise Unreachable("connection failed") from None
        with connection:
            try:
                connection.sendall(head.encode("utf-8", "surrogateescape") + data)
                return _answer(connection)
            except TimeoutError:
                raise Unreachable("timed out") from None
            except OSError:
                raise Unreachable("") from None

    def stream(self, path: str) -> Iterator[str]:
        """The data of server-sent events as they come, until the service ends them. Raises
        Unreachable, or Refused for any answer but 200."""
        head = f"GET {path} HTTP/1.1\r\nX-ZT1-Auth: {self.token}\r\n\r\n"
        try:
            with socket.create_connection((self.host, self.port), TIMEOUT_S) as connection:
                connection.sendall(head.encode("utf-8", "surrogateescape"))
                with connection.makefile("rb") as lines:
                    status = lines.readline().split()
                    if status[1:2] != [b"200"]:
                        raise Refused(status[1].decode() if len(status) > 1 else "")
                    for line in lines:
                        if line.startswith(b"data: "):
                            yield line[6:].decode("utf-8", "replace").rstrip()
        except TimeoutError:
            raise Unreachable("timed out") from None
        except OSError:
            raise Unreachable("connection failed") from None


def _answer(connection: socket.socket) -> tuple[int, str]:
    received = bytearray()

    def more() -> bool:
        chunk = connection.recv(65536)
        received.extend(chunk)
        if len(received) > ANSWER_LIMIT:
            raise Unreachable("answer too large")
        return bool(chunk)

    while (end := received.find(b"\r\n\r\n")) < 0:
        if not more():
            raise Unreachable("")
    lines = bytes(received[:end]).decode("latin-1").split("\r\n")
    del received[: end + 4]
    words = lines[0].split(None, 2)
    if len(words) < 2 or not words[0].startswith("HTTP/") or not words[1].isdigit():
        raise Unreachable("")
    headers = {}
    for line in lines[1:]:
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    length = headers.get("content-length", "")
    wanted = int(length) if length.isdigit() else None
    while wanted is None or len(received) < wanted:
        if not more():
            break
    body = bytes(received if wanted is None else received[:wanted])
    if headers.get("transfer-encoding", "").lower() == "chunked":
        body = _unchunk(body)
    return int(words[1]), body.decode("utf-8", "replace")


def _unchunk(data: bytes) -> bytes:
    out = bytearray()
    while data:
        line, _, data = data.partition(b"\r\n")
        try:
            size = int(line.partition(b";")[0], 16)
        except ValueError:
            break
        if size <= 0:
            break
        out += data[:size]
        data = data[size + 2 :]
    return bytes(out)
