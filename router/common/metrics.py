"""Every number the farm counts: one table, from which the counters and the Prometheus page are made."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from router.common.histogram import Histogram


@dataclass(frozen=True, slots=True)
class Metric:
    """One number. What a dialect alone counts stands in its spec."""

    name: str
    kind: str  # "counter", "gauge" or "histogram" (of seconds: `router.common.histogram`)
    help: str
    reason: str = ""
    """Of what is refused or delayed by a limit: the option in [limits]. All of these are one metric, a row each."""


def _limited(reason: str, what: str) -> Metric:
    return Metric(f"limited_{reason}", "counter", what, reason)


ROUTER_METRICS = (
    Metric("pushes", "counter", "Pushes that asked for delivery, after their request was found valid."),
    Metric("pushes_delivered", "counter", "Pushes answered 200: durable, and written to the device's socket."),
    Metric("pushes_stored", "counter", "Pushes answered 202, or 201: durable, waiting for the device."),
    Metric("pushes_unkept", "counter", "Pushes with a TTL of 0: sent to a device that is connected, never stored."),
    Metric("pushes_refused", "counter", "Pushes answered 503: inbox, store or queue full, or the store failed."),
    Metric("pushes_rejected", "counter", "Pushes answered 401, 404 or 410: bad token or signature, or no such device."),
    Metric("pushes_invalid", "counter", "Pushes answered 400: a version or a header is bad."),
    Metric("pushes_too_long", "counter", "Pushes answered 413: too much data."),
    Metric("pushes_over", "counter", "Of the pushes refused, those because the store holds store.max_bytes."),
    Metric("push_lines_lost", "counter", "Lines of log.pushes lost because stderr did not take them in time."),
    Metric(
        "push_delivered_seconds",
        "histogram",
        "From a push to its answer 200: it is durable, and a worker has written it to the device's socket.",
    ),
    Metric("push_stored_seconds", "histogram", "From a push to its answer 201 or 202: it is durable."),
    _limited("pushes_per_address", "Pushes answered 429, of app servers of an address."),
    _limited("pushes_per_application", "Pushes answered 429, of an application: whose signature they have."),
    _limited("store_bytes_per_application", "Pushes refused (403): the application has too much in the store."),
    _limited("pushes_per_endpoint", "Pushes answered 429, to an endpoint or a channel."),
    Metric("acks", "counter", "Updates that devices acknowledged, as received by the router."),
    Metric("http_requests", "counter", "Requests on the router port."),
    Metric("http_bad_requests", "counter", "Requests that were no valid HTTP or over a limit."),
    Metric("http_connections", "gauge", "Open connections of app servers."),
    Metric("http_buffered", "gauge", "Bytes of requests and answers that wait in the router."),
    Metric("http_given_up", "counter", "Requests and answers given up because of endpoint.max_buffered_bytes."),
    Metric("http_evicted", "counter", "Idle connections of app servers closed to make room for new ones."),
    Metric("http_refused", "counter", "Connections of app servers answered 503 because none was idle."),
    Metric("http_failed", "counter", "Connections of app servers closed because of an error of the router."),
    Metric("http_unowned", "counter", "Requests answered 503 because the router could not renew its lease in time."),
    Metric("http_connects", "counter", "Connections of app servers accepted."),
    Metric("http_disconnects", "counter", "Connections of app servers closed."),
    Metric("http_handshakes", "counter", "TLS handshakes of app servers that were completed."),
    Metric("http_handshakes_failed", "counter", "TLS handshakes of app servers that failed: their connection ended."),
    Metric(
        "http_proxy_refused", "counter", "Connections from listen.proxy_from closed: no PROXY header, or a bad one."
    ),
    Metric("waits", "counter", "Times that pushes were let gather before the router looked: endpoint.gather_ms."),
    Metric("deliveries_late", "counter", "Deliveries no worker confirmed within endpoint.delivery_timeout."),
    Metric("leases_lost", "counter", "Workers that fell silent or could not keep up, and lost their lease."),
    Metric(
        "messages_too_long", "counter", "Messages for workers that were dropped: longer than link.max_message_bytes."
    ),
    Metric(
        "messages_dropped", "counter", "Messages for workers that were dropped: something in them cannot be encoded."
    ),
    Metric("messages_refused", "counter", "Messages of workers that were not understood, and passed over."),
    Metric("link_refused", "counter", "Messages on the link that were not understood, and passed over."),
    Metric("link_dropped", "counter", "Answers on the link dropped: more than link.max_direct waited."),
    Metric("forwards", "counter", "Operations that another router owns, and was asked to perform."),
    Metric("forwards_unreached", "counter", "Those that it did not answer in time: their requests got 503."),
    Metric("forwards_waiting", "gauge", "Those that it has not answered yet."),
    Metric("forwarded", "counter", "Operations performed here that another router asked for."),
    Metric("operations_held", "gauge", "What waits after a start until all workers have announced what they hold."),
    Metric("devices_moved", "counter", "Devices whose newer connection is on another shard."),
    Metric("addresses", "gauge", "Devices and channels in the map."),
    Metric("auth_asked", "counter", "Questions to the application's main server: auth.url."),
    Metric("auth_remembered", "counter", "Requests that got a remembered answer, or one that another waited for."),
    Metric("auth_allowed", "counter", "Requests that the main server has allowed."),
    Metric("auth_refused", "counter", "Requests that the main server has refused (4xx)."),
    Metric("auth_undecided", "counter", "Requests refused because the main server has not decided, or too many wait."),
    Metric("auth_waiting", "gauge", "Requests that wait for the main server."),
    Metric("events", "counter", "Events published to channels, by app servers and by devices."),
    Metric("channels", "gauge", "Occupied channels that have a name."),
    Metric("members", "gauge", "Members of presence channels."),
    Metric("store_commits", "counter", "Group commits."),
    Metric(
        "store_commit_seconds",
        "histogram",
        "How long group commits took until they were durable; not of those that failed.",
    ),
    Metric("store_writes", "counter", "Writes in those commits, after merging."),
    Metric("store_waiting", "gauge", "Writes and reads that wait for a commit."),
    Metric("store_ok", "gauge", "Whether the store can write: 0 from a commit or sweep that failed to the next write."),
    Metric("store_failures", "counter", "Commits and sweeps that failed: what they held was answered 503."),
    Metric("store_unwritable", "counter", "Writes that no store can hold, because of what is in them."),
    Metric("store_bytes", "gauge", "Bytes that what is stored takes, about."),
    Metric("store_unremoved", "gauge", "Removals that failed and are made when the store is well again."),
    Metric("store_expired", "counter", "Stored entries deleted because their time was over."),
    Metric("messages_evicted", "counter", "Stored messages that gave their place to others in a full inbox."),
)

WORKER_METRICS = (
    Metric("connections", "gauge", "Open device connections."),
    Metric("connects", "counter", "Device connections accepted."),
    Metric("disconnects", "counter", "Device connections closed, for whatever reason."),
    Metric("let_go", "counter", "Device connections closed because the worker is about to stop: a drain, a reload."),
    Metric("upgrades", "counter", "Upgrade requests answered 101."),
    Metric("upgrades_refused", "counter", "Requests on the device port answered with an HTTP error."),
    Metric(
        "connections_given_up",
        "counter",
        "Device connections closed when accepted, because they had ended or had waited for worker.accept_patience.",
    ),
    Metric("setups_held_back", "counter", "Times that no connection was accepted because of limits.setups_per_second."),
    Metric("setups_refused", "counter", "Device connections answered 503: they would wait for limits.setups_wait."),
    Metric("connections_refused", "counter", "Device connections answered 503: the worker is full or draining."),
    Metric("proxy_refused", "counter", "Connections of listen.proxy_from closed: no PROXY header, or a malformed one."),
    Metric("handshakes", "counter", "TLS handshakes done on the device port."),
    Metric("handshakes_resumed", "counter", "Those that resumed a session, which costs far less."),
    Metric("handshakes_failed", "counter", "TLS handshakes that failed, as with a client that sends plain HTTP."),
    Metric("tls_connections", "gauge", "Open connections with TLS on the device port, those that are relayed, too."),
    Metric("handed_over", "counter", "Connections of app servers on the device port, passed to the router."),
    Metric("relayed", "gauge", "Those with TLS that this worker relays to a router: tls.max_relayed."),
    Metric("hellos", "counter", "hello commands answered 200."),
    Metric(
        "hello_seconds",
        "histogram",
        "How long a worker waited for the router's reply to a device's hello; the device is answered with it. What the "
        "device waited before that is not in it. Connections that only subscribe to channels are not counted.",
    ),
    Metric("registers", "counter", "register commands answered 200."),
    Metric("unregisters", "counter", "unregister commands answered 200."),
    Metric("acks", "counter", "ack commands."),
    Metric("pings", "counter", "ping commands."),
    Metric("pings_too_many", "counter", "Devices closed because they pinged too often."),
    Metric("commands_refused", "counter", "Commands answered with an error and a close."),
    Metric("updates_sent", "counter", "Updates written to devices."),
    Metric("deliveries_missed", "counter", "Deliveries for devices that are not here any more, or do not read."),
    Metric("channels", "gauge", "Channels that have subscribers on this worker."),
    Metric("events_heard", "counter", "Events of the router for channels that have subscribers here."),
    Metric("events_sent", "counter", "Copies of them for subscribers: written, or buffered for one that is slow."),
    Metric("fanout_waiting", "gauge", "Bytes of events that wait to be written, and of the lists of their receivers."),
    Metric("fanout_lag_seconds", "gauge", "From an event to its last subscriber: the longest of the last second."),
    Metric(
        "fanouts_hurried",
        "counter",
        "Events written without a turn for other devices: more waited than worker.max_fanout_bytes, or for one channel "
        "than half of worker.write_buffer_bytes.",
    ),
    Metric("catch_ups_given_up", "counter", "Devices closed because of worker.max_held_bytes."),
    Metric("buffered", "gauge", "Bytes that wait: input that is not complete or not handled, output for slow devices."),
    Metric("given_up", "counter", "Devices closed because of worker.max_buffered_bytes."),
    _limited("commands_per_second", "Times that a device was read again later: it has sent too many messages."),
    _limited("registrations_per_second", "Times that a device was read again later: it has registered too much."),
    _limited("registrations_per_address", "Times that a device was read again later: devices of its address have."),
    _limited("registrations_per_worker", "Times that a device was read again later: devices of its worker have."),
    _limited("connections_per_address", "Device connections answered 429 or closed: their address has too many."),
    _limited("setups_per_address", "Device connections answered 429 or closed: their address comes too often."),
    Metric("waits", "counter", "Times that input of devices was let gather: worker.wakeup_interval."),
    Metric("connections_failed", "counter", "Devices closed because of an error of the worker."),
    Metric("messages_failed", "counter", "Messages of the router that could not be acted on, because of an error."),
    Metric("protocol_errors", "counter", "Devices closed for breaking RFC 6455."),
    Metric("slow_closed", "counter", "Devices closed because they did not read what was sent."),
    Metric("grants_renewed", "counter", "Times that the main server was asked again about a connection."),
    Metric("grants_ended", "counter", "Connections closed because it refused then, or could not be asked: auth.grace."),
    Metric("timeouts", "counter", "Connections closed because a handshake or hello took too long."),
    Metric("shed", "counter", "Connections closed because a newer one of the same device came."),
    Metric("link_unconfirmed", "gauge", "Batches the router has not confirmed."),
    Metric(
        "link_refused", "counter", "Envelopes and messages of the router that were not understood, and passed over."
    ),
    Metric("link_dropped", "counter", "Messages that could not be sent to the router, and acks given up."),
    Metric("gc_pause_max_seconds", "gauge", "Longest pause for a garbage collection so far."),
)


def _zero(metric: Metric) -> object:
    return Histogram() if metric.kind == "histogram" else 0


def _snapshot(counters: object, metrics: Iterable[Metric]) -> dict[str, float]:
    found: dict[str, float] = {}
    for metric in metrics:
        value = getattr(counters, metric.name)
        if isinstance(value, Histogram):
            found |= value.snapshot(metric.name)
        else:
            found[metric.name] = value
    return found


class RouterCounters:
    """The router's counters, as plain integers and histograms. One attribute for each of `ROUTER_METRICS`."""

    pushes: int
    pushes_delivered: int
    pushes_stored: int
    pushes_unkept: int
    pushes_refused: int
    pushes_over: int
    pushes_rejected: int
    pushes_invalid: int
    pushes_too_long: int
    limited_pushes_per_address: int
    limited_pushes_per_application: int
    limited_pushes_per_endpoint: int
    limited_store_bytes_per_application: int
    push_lines_lost: int
    push_delivered_seconds: Histogram
    push_stored_seconds: Histogram
    acks: int
    http_requests: int
    http_bad_requests: int
    http_connections: int
    http_buffered: int
    http_given_up: int
    http_evicted: int
    http_refused: int
    http_failed: int
    http_unowned: int
    http_connects: int
    http_disconnects: int
    http_handshakes: int
    http_handshakes_failed: int
    http_proxy_refused: int
    waits: int
    deliveries_late: int
    leases_lost: int
    messages_too_long: int
    messages_dropped: int
    messages_refused: int
    link_refused: int
    link_dropped: int
    forwards: int
    forwards_unreached: int
    forwards_waiting: int
    forwarded: int
    operations_held: int
    devices_moved: int
    auth_asked: int
    auth_remembered: int
    auth_allowed: int
    auth_refused: int
    auth_undecided: int
    auth_waiting: int
    events: int
    channels: int
    members: int

    def __init__(self) -> None:
        for metric in ROUTER_METRICS:
            setattr(self, metric.name, _zero(metric))

    def count(self, name: str) -> None:
        """One more of the number of this name."""
        setattr(self, name, getattr(self, name) + 1)

    def snapshot(self) -> dict[str, float]:
        """Name to value, for the status message."""
        return _snapshot(self, ROUTER_METRICS)


class WorkerCounters:
    """A worker's counters. One attribute for each of `WORKER_METRICS`."""

    connections: int
    connects: int
    disconnects: int
    let_go: int
    upgrades: int
    upgrades_refused: int
    connections_given_up: int
    setups_held_back: int
    setups_refused: int
    connections_refused: int
    proxy_refused: int
    handshakes: int
    handshakes_resumed: int
    handshakes_failed: int
    tls_connections: int
    handed_over: int
    relayed: int
    hellos: int
    hello_seconds: Histogram
    registers: int
    unregisters: int
    acks: int
    pings: int
    pings_too_many: int
    commands_refused: int
    updates_sent: int
    deliveries_missed: int
    channels: int
    events_heard: int
    events_sent: int
    fanout_waiting: int
    fanout_lag_seconds: float
    fanouts_hurried: int
    catch_ups_given_up: int
    buffered: int
    given_up: int
    limited_commands_per_second: int
    limited_registrations_per_second: int
    limited_registrations_per_address: int
    limited_registrations_per_worker: int
    limited_connections_per_address: int
    limited_setups_per_address: int
    waits: int
    connections_failed: int
    messages_failed: int
    protocol_errors: int
    slow_closed: int
    grants_renewed: int
    grants_ended: int
    timeouts: int
    shed: int
    link_unconfirmed: int
    link_refused: int
    link_dropped: int
    gc_pause_max_seconds: float

    def __init__(self) -> None:
        for metric in WORKER_METRICS:
            setattr(self, metric.name, _zero(metric))

    def snapshot(self) -> dict[str, float]:
        """Name to value, for the worker's beat."""
        return _snapshot(self, WORKER_METRICS)
