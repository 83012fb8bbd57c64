"""The app servers' side of the Python servers: `PUT /push/{device}` with the version as its body, over connections that
stay open.

Read by hand: a web framework beside the library would be measured with it, and always to its disadvantage. Pure.
"""

_PATH = b"PUT /push/"
_LENGTH = b"\r\ncontent-length:"

DONE = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
GONE = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"


class PutRequests:
    """The requests of one connection: bytes in, (device, body) out."""

    def __init__(self) -> None:
        self._data = b""

    def feed(self, data: bytes) -> list[tuple[str, str]]:
        """The requests that are complete with this data.

        Raises:
          ValueError: something else than such a request.
        """
        data = self._data + data
        found = []
        while (head := data.find(b"\r\n\r\n")) >= 0:
            if not data.startswith(_PATH):
                raise ValueError("not a push")
            lines = data[: head + 2]
            at = lines.lower().find(_LENGTH)
            size = int(lines[at + len(_LENGTH) : lines.find(b"\r\n", at + 2)]) if at >= 0 else 0
            end = head + 4 + size
            if len(data) < end:
                break
            found.append((lines[len(_PATH) : lines.find(b" ", len(_PATH))].decode(), data[head + 4 : end].decode()))
            data = data[end:]
        self._data = data
        return found
