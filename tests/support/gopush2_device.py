"""The device side of gopush2 with a router that answers what the test wants."""

from collections.abc import Sequence
from typing import Any

from farm.dialects import Become, Call, Close, Context, Effects, Event, Session, Subscribe, Subscribed, Tick
from farm.dialects.gopush2.dialect import Gopush2Dialect
from farm.transports.request import Request
from router.common import messages as m
from router.common.metrics import WorkerCounters
from router.common.operation import encoded
from router.common.position import LogEvent, LogSlice
from router.common.token import Tokens
from router.dialects.gopush2.protocol import ENTERED, Entry, Gopush2Options, message_body
from support.common import Clock, settings_with

KEY = "Terry-Mao"
QUERY = f"key={KEY}&mid=0&token=test"
EPOCH = 7
DAY = 86_400


def request(query: str = QUERY, path: str = "/sub") -> Request:
    return Request(b"GET", path, query, {}, (1, 1), socket_id="1234.1234")


def event(mid: int, message: str = "") -> LogEvent:
    """A message in the log."""
    body = message_body((message or f"message {mid}").encode(), 1 << 20)
    assert body is not None
    return LogEvent(mid, 1_700_000_000, mid, 2_000_000_000, "", {}, body)


def made(clock: Clock | None = None, **options: Any) -> Gopush2Dialect:
    """The dialect with these options."""
    settings = settings_with((Gopush2Options, options))
    return Gopush2Dialect(Context(settings, Tokens([b"k" * 32]), WorkerCounters(), (clock or Clock()).unix))


class Device:
    """One connection: `sent` is what it has been sent, `open` what the router has been asked."""

    def __init__(self, query: str = QUERY, **options: Any) -> None:
        self.clock = Clock()
        self.dialect = made(self.clock, **options)
        self.counters = self.dialect.counters
        session = self.dialect.opened(request(query))
        assert isinstance(session, Session)
        self.session = session
        self.sent: list[bytes] = []
        self.open: Call | Subscribe | None = None
        self.closed: Close | None = None
        self.ticks: list[float] = []
        self.take(session.begun(self.now))

    @property
    def now(self) -> float:
        return self.clock.monotonic()

    def take(self, effects: Effects) -> None:
        """Carry the effects out."""
        for effect in effects:
            assert self.closed is None
            if isinstance(effect, bytes):
                self.sent.append(effect)
            elif isinstance(effect, Event):
                assert effect.logged is not None
                self.sent.append(effect.text)
            elif isinstance(effect, Call | Subscribe):
                assert self.open is None
                self.open = effect
            elif isinstance(effect, Become):
                assert effect.session.channels == self.session.channels
                self.session = effect.session
            elif isinstance(effect, Tick):
                self.ticks.append(effect.seconds)
            else:
                assert isinstance(effect, Close), effect
                self.closed = effect

    def asked(self) -> m.AnyRequest:
        """What the router is asked now."""
        assert isinstance(self.open, Call)
        return self.open.request

    def wants(self) -> Any:
        """What it wants to subscribe to now."""
        assert isinstance(self.open, Subscribe)
        (wanted,) = self.open.channels
        return wanted

    def replied(self, status: int = m.OK, outcome: int = ENTERED, seconds: int = DAY) -> None:
        """The router answers the call."""
        assert isinstance(self.open, Call)
        call, self.open = self.open, None
        payload = encoded(Entry(outcome, seconds)) if status == m.OK else None
        self.take(self.session.replied(call.context, status, payload, self.now))

    def subscribed(self, status: int = m.OK, events: Sequence[LogEvent] | None = (), recovered: bool = True) -> None:
        """What becomes of the Subscribe. events: in its log; None: which could not be read."""
        wanted, self.open = self.wants(), None
        log = (
            None
            if events is None
            else LogSlice(EPOCH, max((one.offset for one in events), default=0), recovered, [*events])
        )
        self.take(self.session.subscribed([Subscribed(wanted, status, None, log)], self.now))

    def joins(self, *events: LogEvent) -> None:
        """All goes well."""
        self.replied()
        self.subscribed(events=events)

    def said(self, message: bytes, binary: bool = False) -> list[bytes]:
        """The device sends this. Returns: what it is sent then."""
        before = len(self.sent)
        self.take(self.session.received(message, binary, self.now))
        return self.sent[before:]

    def tick(self, silent: float) -> float:
        """Returns: when it wants the next."""
        effects, again = self.session.tick(silent)
        self.take(effects)
        return again
