"""The baseline: trio-websocket's `serve_websocket` as its users run it, one task per connection that waits
for a message.

Compression does not exist in it; the handler reads messages and drops them. Started by `bench.crew` as
`python -m bench.baseline FD`; it says its port once it listens, and ends with its link.
"""

import socket
import sys

import trio
from trio_websocket import ConnectionClosed, WebSocketRequest, WebSocketServer, serve_websocket

from bench.link import Link


async def hold(request: WebSocketRequest) -> None:
    """One connection."""
    connection = await request.accept()
    try:
        while True:
            await connection.get_message()
    except ConnectionClosed:
        return


async def serve(link: Link) -> None:
    """Serve on a free port of loopback until the link is told to stop, or closed."""
    async with trio.open_nursery() as nursery:
        server: WebSocketServer = await nursery.start(serve_websocket, hold, "127.0.0.1", 0, None)
        link.send("up", port=server.port)
        await trio.lowlevel.wait_readable(link.sock)
        nursery.cancel_scope.cancel()


def main(descriptor: int) -> None:
    link = Link(socket.socket(fileno=descriptor))
    link.wait()
    trio.run(serve, link)


if __name__ == "__main__":
    main(int(sys.argv[1]))
