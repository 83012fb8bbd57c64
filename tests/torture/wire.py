"""A WebSocket and an HTTP client on asyncio streams, which share nothing with the farm nor with its other tests."""

from __future__ import annotations

import asyncio
import base64
import os
import socket
import struct
from typing import Any, Final

CONNECT_S: Final = 10.0
_TEXT: Final = 1
_CLOSE: Final = 8
_PING: Final = 9
_PONG: Final = 10


class Gone(Exception):
    """The connection has ended. `code` is the close code, if the farm sent one."""

    def __init__(self, why: str, code: int = 0) -> None:
        super().__init__(why)
        self.code = code


def frame(payload: bytes, opcode: int = _TEXT) -> bytes:
    """A whole masked frame."""
    size = len(payload)
    head = bytes([0x80 | opcode])
    if size < 126:
        head += bytes([0x80 | size])
    elif size < 65_536:
        head += bytes([0x80 | 126]) + size.to_bytes(2, "big")
    else:
        head += bytes([0x80 | 127]) + size.to_bytes(8, "big")
    mask = os.urandom(4)
    whole = (mask * (size // 4 + 1))[:size]
    masked = (int.from_bytes(payload, "big") ^ int.from_bytes(whole, "big")).to_bytes(size, "big")
    return head + mask + masked


class WebSocket:
    """One connection of a client."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def dial(cls, port: int, path: str = "/", subprotocol: str = "") -> WebSocket:
        """Connect and upgrade. Raises: Gone."""
        try:
            async with asyncio.timeout(CONNECT_S):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                offer = f"Sec-WebSocket-Protocol: {subprotocol}\r\n" if subprotocol else ""
                key = base64.b64encode(os.urandom(16)).decode()
                request = (
                    f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                    f"{offer}Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n"
                )
                writer.write(request.encode())
                head = await reader.readuntil(b"\r\n\r\n")
        except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            raise Gone(f"no upgrade: {error!r}") from None
        first = head.partition(b"\r\n")[0].decode("latin-1")
        if " 101 " not in first:
            writer.close()
            raise Gone(first)
        return cls(reader, writer)

    @property
    def port(self) -> int:
        """Our end's."""
        return int(self._writer.get_extra_info("sockname")[1])

    def send(self, text: str) -> None:
        """One text message; an end of the connection is noticed by `receive`."""
        if not self._writer.is_closing():
            self._writer.write(frame(text.encode()))

    async def receive(self) -> str:
        """The next text message; pings are answered. Raises: Gone."""
        try:
            while True:
                first, second = await self._reader.readexactly(2)
                size = second & 127
                if size == 126:
                    size = int.from_bytes(await self._reader.readexactly(2), "big")
                elif size == 127:
                    size = int.from_bytes(await self._reader.readexactly(8), "big")
                payload = await self._reader.readexactly(size) if size else b""
                opcode = first & 15
                if opcode == _TEXT:
                    return payload.decode()
                if opcode == _PING:
                    self._writer.write(frame(payload, _PONG))
                elif opcode == _CLOSE:
                    code = int.from_bytes(payload[:2], "big") if payload else 1005
                    self._writer.write(frame(payload[:2], _CLOSE))
                    raise Gone(f"closed {code} {payload[2:].decode(errors='replace')}", code)
        except (OSError, asyncio.IncompleteReadError) as error:
            raise Gone(repr(error)) from None

    def close(self) -> None:
        """End it in the usual way."""
        self.send_close()
        self._writer.close()

    def send_close(self) -> None:
        """Our close frame."""
        if not self._writer.is_closing():
            self._writer.write(frame(b"\x03\xe8", _CLOSE))

    def reset(self) -> None:
        """End it by a RST."""
        handle: Any = self._writer.get_extra_info("socket")
        if handle is not None and handle.fileno() >= 0:
            handle.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()

    def deafen(self) -> None:
        """Read nothing more from the socket, and leave it open."""
        if not self._writer.is_closing():
            self._writer.transport.pause_reading()  # type: ignore[attr-defined]

    def listen(self) -> bool:
        """Read again. Returns: whether that is possible: if something could not be written meanwhile, asyncio has given
        the connection up, with whatever the kernel had for us."""
        if self._writer.is_closing():
            return False
        self._writer.transport.resume_reading()  # type: ignore[attr-defined]
        return True


class Answer:
    """What an HTTP request was answered."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body


class Http:
    """A kept-alive connection, one request at a time."""

    def __init__(self, port: int, patience: float = 15.0) -> None:
        self._port = port
        self._patience = patience
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def request(self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None) -> Answer:
        """Send it and wait for the answer. Status 0: there was none, and the body is the reason."""
        try:
            async with asyncio.timeout(self._patience):
                return await self._request(method, path, body, headers or {})
        except (OSError, TimeoutError, asyncio.IncompleteReadError, ValueError) as error:
            self.close()
            return Answer(0, {}, repr(error).encode())

    async def _request(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> Answer:
        if self._streams is None or self._streams[1].is_closing() or self._streams[0].at_eof():
            self.close()
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        more = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n{more}\r\n"
        writer.write(head.encode() + body)
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        found = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
        size = int(found.get("content-length", "0"))
        content = await reader.readexactly(size) if size and method != "HEAD" else b""
        if "close" in found.get("connection", "").lower():
            self.close()
        return Answer(int(first.split(" ", 2)[1]), found, content)

    def close(self) -> None:
        """Give the connection up."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None
