"""A push server as users of uWebSockets write it, in Python with socketify: a topic a device.

    python socketify_server.py DEVICE_PORT PUSH_PORT

A device connects to /sub/{device}; `PUT /push/{device}` publishes its body to that device's topic.
"""

import gc
import sys
from typing import Any

from socketify import App, AppListenOptions, CompressOptions, OpCode


def upgrade(response: Any, request: Any, context: Any) -> None:
    """Accept a device, and remember its name with the socket."""
    response.upgrade(
        request.get_header("sec-websocket-key"),
        request.get_header("sec-websocket-protocol"),
        request.get_header("sec-websocket-extensions"),
        context,
        request.get_parameter(0),
    )


def opened(socket: Any) -> None:
    """Subscribe a device to its topic: C++ holds that, not Python."""
    socket.subscribe(socket.get_user_data())


def main(device_port: int, push_port: int) -> None:
    # No coroutine anywhere: plain functions are the fast way. The factories, which reuse wrapper objects, are not used:
    # they are slower on CPython, says the manual.
    app = App(lifespan=False)
    app.ws(
        "/sub/:device",
        {
            "compression": CompressOptions.DISABLED,
            "max_payload_length": 4096,
            "max_backpressure": 64 * 1024,
            "idle_timeout": 960,  # the longest: devices are silent, and a ping each would be work that others don't do
            "send_pings_automatically": False,
            "upgrade": upgrade,
            "open": opened,
            # no message handler: devices say nothing, and each handler is a call into Python
        },
    )

    def push(response: Any, request: Any) -> None:
        topic = request.get_parameter(0)

        def body(response: Any, chunk: bytes, is_end: bool) -> None:
            # a version, or an event of a hundred bytes, is so short that it comes in one piece
            app.publish(topic, chunk, OpCode.TEXT)
            response.end("")

        response.on_data(body)

    app.put("/push/:device", push)
    app.listen(AppListenOptions(port=device_port, host="127.0.0.1"))
    app.listen(AppListenOptions(port=push_port, host="127.0.0.1"))
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    # Only C++ events and plain functions: libuv waits by itself. `app.run()` would poll it from asyncio, always awake.
    app.loop.started = True
    app.loop.uv_loop.run()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
