"""A push server as users of `websockets` write it, on its asyncio implementation.

    python websockets_server.py DEVICE_PORT PUSH_PORT

A device connects to /sub/{device}; `PUT /push/{device}` writes its body to that device's socket.
"""

import asyncio
import gc
import sys
from typing import Any

from put_requests import DONE, GONE, PutRequests  # beside this script, wherever the script lies
from websockets.asyncio.server import ServerConnection, broadcast, serve

devices: dict[str, ServerConnection] = {}


async def device(connection: ServerConnection) -> None:
    """One device, until it goes."""
    assert connection.request is not None
    name = connection.request.path.rpartition("/")[2]
    devices[name] = connection
    try:
        await connection.wait_closed()
    finally:
        if devices.get(name) is connection:
            del devices[name]


class AppServer(asyncio.Protocol):
    """One connection of an app server. 200 once the frame was given to the socket."""

    def connection_made(self, transport: Any) -> None:
        self.transport: asyncio.Transport = transport
        self.requests = PutRequests()

    def data_received(self, data: bytes) -> None:
        try:
            found = self.requests.feed(data)
        except ValueError:
            self.transport.abort()
            return
        for name, version in found:
            connection = devices.get(name)
            if connection is None:
                self.transport.write(GONE)
                continue
            # the documented way to push: writes at once, without a task or an await
            broadcast((connection,), version)
            self.transport.write(DONE)


async def main(device_port: int, push_port: int) -> None:
    loop = asyncio.get_running_loop()
    await loop.create_server(AppServer, "127.0.0.1", push_port, backlog=4096)
    # compression would cost tens of KB a connection, says the manual.
    # ping_interval: the devices ping by themselves, as they do elsewhere here; its own keepalive is a task a connection
    # max_queue, max_size: devices hardly send anything
    # open_timeout: the backlog is long when all come at once
    async with serve(
        device,
        "127.0.0.1",
        device_port,
        compression=None,
        ping_interval=None,
        max_queue=1,
        max_size=4096,
        open_timeout=60,
        server_header=None,
        backlog=4096,
    ) as server:
        gc.freeze()
        # thousands of connections are all alive and a collection walks them all: full ones should be rare
        gc.set_threshold(50_000, 20, 100)
        await server.serve_forever()


if __name__ == "__main__":
    arguments = int(sys.argv[1]), int(sys.argv[2])
    try:
        import uvloop
    except ImportError:
        asyncio.run(main(*arguments))
    else:  # faster, where it is installed
        uvloop.run(main(*arguments))
