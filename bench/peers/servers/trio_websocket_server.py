"""A push server as users of trio-websocket write it: one task a connection, which waits for messages.

    python trio_websocket_server.py DEVICE_PORT PUSH_PORT

A device connects to /sub/{device}; `PUT /push/{device}` writes its body to that device's socket.
"""

import gc
import sys

import trio
from put_requests import DONE, GONE, PutRequests  # beside this script, wherever the script lies
from trio_websocket import ConnectionClosed, WebSocketConnection, WebSocketRequest, serve_websocket

devices: dict[str, WebSocketConnection] = {}


async def device(request: WebSocketRequest) -> None:
    """One device, until it goes."""
    name = request.path.rpartition("/")[2]
    connection = await request.accept()
    devices[name] = connection
    try:
        while True:
            await connection.get_message()
    except ConnectionClosed:
        if devices.get(name) is connection:
            del devices[name]


async def app_server(stream: trio.SocketStream) -> None:
    """One connection of an app server. 200 once the frame was given to the socket."""
    requests = PutRequests()
    try:
        async for data in stream:
            for name, version in requests.feed(data):
                await stream.send_all(DONE if await push(name, version) else GONE)
    except (trio.BrokenResourceError, ValueError):
        return


async def push(name: str, version: str) -> bool:
    """Write to a device; whether it is there."""
    connection = devices.get(name)
    if connection is None:
        return False
    try:
        await connection.send_message(version)
    except ConnectionClosed:
        return False
    return True


async def main(device_port: int, push_port: int) -> None:
    # thousands of connections are all alive and a collection walks them all (1.1 s at 16,000): who holds many raises
    # the thresholds, so that full ones are rare
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    async with trio.open_nursery() as nursery:
        # the library has no compression; the other defaults are small already: a queue of one message, reads of 4 KiB
        nursery.start_soon(serve_websocket, device, "127.0.0.1", device_port, None)
        nursery.start_soon(trio.serve_tcp, app_server, push_port)


if __name__ == "__main__":
    trio.run(main, int(sys.argv[1]), int(sys.argv[2]))
