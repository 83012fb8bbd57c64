"""How a push is written and its answer read: one class for each kind of push port, which stands with its protocol in
`bench.load.protocols`. Bytes in, bytes out, but for the greeting of a protocol that begins with one.

Every one is used in the same way, one push outstanding on a connection, so that what they take can be compared.
"""

from bench.load.http_bytes import Response, payload_of, response_of


class Wire:
    """A push port that answers over HTTP. `host`: the Host header's value; `authorization`: that of the header of this
    name, for those that send one."""

    def __init__(self, host: str, authorization: str = "") -> None:
        self.host = host

    def greet(self, descriptor: int) -> None:
        """What comes before the first push on a new connection.

        Raises:
          OSError: the server does not answer as it should.
        """

    def request(self, path: bytes, version: int, payload: int) -> bytes:
        """One push of a version, with `payload` bytes of data where the protocol has that."""
        raise NotImplementedError

    def response(self, data: bytes) -> Response | None:
        """The first answer in `data`, None while it is incomplete.

        Raises:
          PeerError: not an answer.
        """
        return response_of(data)


class BatchWire(Wire):
    """A push port that takes many pushes in one request, see `bench.load.batchers`."""

    def requests(self, paths: list[bytes], versions: list[int], payload: int) -> bytes:
        """One request of a push to each of these paths."""
        raise NotImplementedError


def body_of(version: int, payload: int) -> bytes:
    """The version, over and over if it is to fill a payload."""
    return payload_of(version, payload) if payload else b"%d" % version
