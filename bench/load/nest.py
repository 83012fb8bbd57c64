"""The process that load processes are forked from: it has imported what they run, so that a hundred of them share it.

A load process that starts as `python -m` costs 8 MB before it holds a device; forked, about 2. Started by
`bench.runs.load_processes` as `python -m bench.load.nest FD`; both speak over one SOCK_SEQPACKET socket pair, one JSON
object a packet, a request and its answer:

    {"fork": module}  with the descriptor of the child's link   -> {"pid": n}
    {"poll": pid}                                                -> {"status": exit code, negative: signal; null: runs}

Nothing is reaped before it is asked for, so a pid that was not answered for is still that child's. When the bench
goes, the socket ends and so does this process; its children see their links end.
"""

import gc
import importlib
import json
import os
import signal
import socket
import sys
import traceback
from typing import Any, Final

PACKET_BYTES: Final = 4096
IMPORTED: Final = ("bench.load.devices", "bench.load.pushers", "bench.load.subscribers", "bench.load.publishers")


def main(descriptor: int) -> None:
    for module in IMPORTED:
        importlib.import_module(module)
    gc.collect()
    gc.freeze()
    control = socket.socket(fileno=descriptor)
    while True:
        packet, descriptors, _, _ = socket.recv_fds(control, PACKET_BYTES, 1)
        if not packet:
            return
        asked = json.loads(packet)
        answer = _fork(control, asked["fork"], descriptors[0]) if "fork" in asked else _poll(asked["poll"])
        control.send(json.dumps(answer).encode())


def _fork(control: socket.socket, module: str, link: int) -> dict[str, Any]:
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            control.close()
            # a group of its own, so that Ctrl-C is the bench's alone; not a session, see bench.runs.load_processes
            os.setpgid(0, 0)
            importlib.import_module(module).main(link)
            code = 0
        except KeyboardInterrupt:
            code = 128 + signal.SIGINT
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    os.close(link)
    return {"pid": pid}


def _poll(pid: int) -> dict[str, Any]:
    ended, status = os.waitpid(pid, os.WNOHANG)
    return {"status": os.waitstatus_to_exitcode(status) if ended else None}


if __name__ == "__main__":
    main(int(sys.argv[1]))
