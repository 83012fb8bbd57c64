"""Publishers of push stream: what they send, what they are told, and who is refused."""

import json

import pytest
from support.common import Rig, in_rig
from support.pushstream_app import Listener, PushApp

from farm import cli
from router.common import messages as m
from router.common.operation import Operation
from router.dialects.pushstream.protocol import EXPLAIN, Admit, Publish, channel_address
from router.dialects.pushstream.templates import Message


@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_a_message_is_stored_and_sent_and_the_channel_told_of(method: str) -> None:
    @in_rig()
    async def scenario(rig: Rig) -> None:
        app = PushApp(rig)
        listener = app.subscribe("a", "b")
        answer = await app.call(method, "/pub?id=a", "hello \u20ac", event_id="e1", event_type="t")
        assert (answer.status, answer.content_type) == (200, "application/json")
        assert answer.body == b'{"channel": "a", "published_messages": 1, "stored_messages": 1, "subscribers": 1}\r\n'
        assert listener.hear() == [Message(1, "", "hello \u20ac", 0, 0, "e1", "t")]
        assert await app.publish("a") == {
            "channel": "a",
            "published_messages": 2,
            "stored_messages": 2,
            "subscribers": 1,
        }
        assert listener.texts() == ["text"]

    scenario()


@in_rig()
async def test_the_answer_waits_until_the_message_is_durable(rig: Rig) -> None:
    app = PushApp(rig)
    listener = app.subscribe("a")
    rig.store.hold()
    answers = app.ask("POST", "/pub?id=a", "text")
    listener.worker.tell_counts()
    await rig.settle()
    assert (answers, listener.hear()) == ([], [])
    rig.store.release()
    await rig.settle()
    assert [answer.status for answer in answers] == [200]
    assert listener.texts() == ["text"]
    rig.store.failing = True
    assert await app.refused("POST", "/pub?id=a", "text") == (503, "The store could not keep it.")
    assert listener.hear() == []
    answer = await app.call("POST", "/pub?id=a", "text")
    assert ("Retry-After", "5") in answer.headers


@in_rig()
async def test_a_message_goes_to_several_channels(rig: Rig) -> None:
    app = PushApp(rig)
    listener = app.subscribe("a", "b")
    await app.publish("b")
    listener.hear()
    told = await app.publish("/a/b/a")
    assert [(info["channel"], info["published_messages"]) for info in told["infos"]] == [("a", 1), ("b", 2)]
    assert (told["channels"], told["wildcard_channels"]) == (2, 0)
    assert [one.id for one in listener.hear() if isinstance(one, Message)] == [1, 2]


@in_rig()
async def test_without_channel_info_the_answer_is_empty(rig: Rig) -> None:
    app = PushApp(rig, channel_info_on_publish=False)
    answer = await app.call("POST", "/pub?id=a", "text")
    assert (answer.status, answer.body) == (200, b"")
    assert await app.info("a") == (1, 1, 0)


@in_rig()
async def test_without_storing_a_message_is_sent_at_once_and_counted(rig: Rig) -> None:
    app = PushApp(rig, store_messages=False)
    listener = app.subscribe("a")
    rig.store.hold()
    for number in (1, 2):
        answers = app.ask("POST", "/pub?id=a", f"text {number}", event_id="e")
        listener.worker.tell_counts()
        (answer,) = answers
        assert json.loads(answer.body)["published_messages"] == number
    assert listener.hear() == [Message(1, "", "text 1", 0, 0, "e"), Message(2, "", "text 2", 0, 0, "e")]
    rig.store.release()
    assert await app.info("a") == (2, 0, 1)


@in_rig()
async def test_ids_go_on_where_messages_were_not_stored_before(rig: Rig) -> None:
    app = PushApp(rig, store_messages=False)
    listener = app.subscribe("a")
    for _ in range(3):
        await app.publish("a")
    listener.hear()
    object.__setattr__(app.state.options, "store_messages", True)
    assert (await app.publish("a"))["published_messages"] == 4
    assert [one.id for one in listener.hear() if isinstance(one, Message)] == [4]


@in_rig()
async def test_the_number_of_stored_messages_is_limited(rig: Rig) -> None:
    app = PushApp(rig, max_messages_stored_per_channel=2, message_ttl=10)
    for _ in range(4):
        await app.publish("a")
    assert await app.info("a") == (4, 2, 0)
    rig.clock.pass_by(5)
    await app.publish("a")
    rig.clock.pass_by(6)
    assert await app.info("a") == (5, 1, 0)


@pytest.mark.parametrize(
    ("method", "path", "body", "refused"),
    [
        ("POST", "/pub?id=", "text", (400, "No channel id provided.")),
        ("GET", "/pub?id=", "", (400, "No channel id provided.")),
        ("POST", "/pub", "text", (400, "No channel id provided.")),
        ("POST", "/pub?key=a", "text", (400, "No channel id provided.")),
        ("GET", "/pub", "", (400, "No channel id provided.")),
        ("DELETE", "/pub", "", (400, "No channel id provided.")),
        ("POST", "/pub?id=a", "", (400, "Empty post requests are not allowed.")),
        ("POST", "/pub?id=ALL", "text", (403, "Channel id not authorized for this method.")),
        ("PUT", "/pub?id=a*", "text", (403, "Channel id not authorized for this method.")),
        ("POST", f"/pub?id={'x' * 201}", "text", (400, "Channel id is too large.")),
        ("POST", "/pub?id=a%0db", "text", (400, "Channel id has control characters, or is not UTF-8.")),
        ("POST", "/pub?id=a%ff", "text", (400, "Channel id has control characters, or is not UTF-8.")),
        ("POST", "/pub?id=a", b"\xff", (400, "The message is not UTF-8.")),
        ("POST", "/pub?id=a", "x" * 101, (413, "The message is too large.")),
        ("POST", "/pub?id=a", "\u20ac" * 34, (413, "The message is too large.")),
        ("DELETE", "/pub?id=a", "x" * 101, (413, "The message is too large.")),
        ("DELETE", "/pub?id=a", b"\xff", (400, "The message is not UTF-8.")),
        ("GET", "/pub?id=a", "", (404, "")),
        ("DELETE", "/pub?id=a", "", (404, "")),
        ("HEAD", "/pub?id=a", "", (405, "")),
        ("PATCH", "/pub?id=a", "", (405, "")),
        ("POST", "/pub?id=events", "text", (403, "Only internal routines can change events channel.")),
        ("DELETE", "/pub?id=events", "", (403, "Only internal routines can change events channel.")),
    ],
)
def test_what_is_refused(method: str, path: str, body: bytes | str, refused: tuple[int, str]) -> None:
    @in_rig()
    async def scenario(rig: Rig) -> None:
        app = PushApp(rig, max_message_bytes=100, events_channel_id="events")
        assert await app.refused(method, path, body) == refused
        answer = await app.call(method, path, body)
        if refused[0] == 405:
            assert ("Allow", "GET, POST, PUT, DELETE") in answer.headers

    scenario()


@in_rig()
async def test_ids_of_events_are_limited(rig: Rig) -> None:
    app = PushApp(rig)
    why = "Event-Id and Event-Type have at most 1024 characters."
    assert await app.refused("POST", "/pub?id=a", "text", event_id="x" * 1025) == (400, why)
    assert await app.refused("POST", "/pub?id=a", "text", event_type="x" * 1025) == (400, why)
    assert await app.publish("a", event_id="x" * 1024, event_type="x" * 1024)


@in_rig(store={"max_bytes": 1})
async def test_nothing_is_taken_for_a_store_that_is_full(rig: Rig) -> None:
    app = PushApp(rig)
    await app.publish("a")
    assert await app.refused("POST", "/pub?id=a", "text") == (503, "The store is full, or too much waits for it.")
    assert rig.hub.counters.pushes_refused == 1


# ---------------------------------------------------------------------- deleting


@in_rig()
async def test_a_deleted_channel_ends_for_everybody(rig: Rig) -> None:
    app = PushApp(rig)
    listener = app.subscribe("a", "b")
    for _ in range(3):
        await app.publish("a")
    listener.hear()
    answer = await app.call("DELETE", "/pub?id=a", "the end")
    assert (answer.status, answer.body) == (200, b"")
    assert ("X-Nginx-PushStream-Explain", "Channel deleted.") in answer.headers
    told, closed = listener.hear()
    assert told == Message(-2, "", "the end")
    assert closed == m.Terminate(channel_address("a"), 1005, "")
    listener.leave("a")
    assert await app.info("a") is None
    assert await app.info("b") == (0, 0, 1)
    await app.call("POST", "/pub?id=a", "again")
    assert await app.info("a") == (1, 1, 0)


@in_rig()
async def test_a_deletion_is_durable_when_it_is_answered(rig: Rig) -> None:
    app = PushApp(rig)
    await app.publish("a")
    rig.store.failing = True
    assert (await app.refused("DELETE", "/pub?id=a"))[0] == 503
    rig.store.failing = False
    assert await app.info("a") == (1, 1, 0)
    assert (await app.call("DELETE", "/pub?id=a")).status == 200
    assert await PushApp(rig).info("a") is None


@in_rig()
async def test_of_several_those_are_deleted_that_there_are(rig: Rig) -> None:
    app = PushApp(rig)
    listener = app.subscribe("a", "b", "c")
    assert (await app.call("DELETE", "/pub?id=a/x/b")).status == 200
    assert [one for one in listener.hear() if isinstance(one, Message)] == [Message(-2, "", "Channel deleted")] * 2


# ---------------------------------------------------------------------- who may, and pages of other origins


@in_rig()
async def test_a_key_or_a_program_of_this_host_is_needed(rig: Rig) -> None:
    app = PushApp(rig)
    for path in ("/pub?id=a", "/channels-stats"):
        assert (await app.call("GET", path, address="192.0.2.1")).status == 403
        assert (await app.call("GET", path, x_forwarded_for="192.0.2.1")).status == 403
    keyed = PushApp(rig, admin_key="secret")
    refused = await keyed.call("GET", "/channels-stats")
    assert (refused.status, dict(refused.headers)[EXPLAIN]) == (403, refused.body.decode())
    assert (await keyed.call("GET", "/channels-stats?admin_key=secret", address="192.0.2.1")).status == 200
    found = await keyed.call("POST", "/pub?id=a", "text", address="192.0.2.1", authorization="Bearer secret")
    assert found.status == 200


@in_rig()
async def test_a_browser_asks_first_and_needs_no_key_for_that(rig: Rig) -> None:
    app = PushApp(rig, admin_key="secret", allowed_origins=("https://a.example", "https://b.example"))
    answer = await app.call("OPTIONS", "/pub?id=a", origin="https://b.example")
    assert (answer.status, answer.body) == (200, b"")
    headers = dict(answer.headers)
    assert headers["Access-Control-Allow-Origin"] == "https://b.example"
    assert headers["Access-Control-Allow-Methods"] == "GET, POST, PUT, DELETE"
    assert "Event-Id" in headers["Access-Control-Allow-Headers"]
    answer = await app.call("OPTIONS", "/channels-stats", origin="https://c.example")
    assert answer.headers == (("Allow", "GET"), ("Vary", "Origin"))
    answer = await app.call("GET", "/pub?id=x&admin_key=secret", origin="https://a.example")
    assert ("Access-Control-Allow-Origin", "https://a.example") in answer.headers
    assert (await PushApp(rig).call("OPTIONS", "/pub")).headers == (("Allow", "GET, POST, PUT, DELETE"),)
    everybody = await PushApp(rig, allowed_origins=("*",)).call("OPTIONS", "/pub?id=a")
    assert ("Access-Control-Allow-Origin", "*") in everybody.headers


@in_rig()
async def test_where_both_sides_have_one_port_a_browser_asks_the_router_for_subscribers_too(rig: Rig) -> None:
    app = PushApp(rig, one_port=True, allowed_origins=("*",), admin_key="secret")
    answer = await app.call("OPTIONS", "/lp/a/b", origin="https://a.example")
    assert answer.status == 200
    assert ("Access-Control-Allow-Methods", "GET") in answer.headers
    assert (await app.call("GET", "/lp/a")).status == 404
    assert PushApp(rig).router.find(b"/lp/a") is None


# ---------------------------------------------------------------------- for the device side


@in_rig()
async def test_what_a_subscriber_sends_is_published(rig: Rig) -> None:
    app = PushApp(rig, events_channel_id="events")
    listener = app.subscribe("a", "b")
    assert await app.perform(Publish(["a", "b"], "from a page")) == (m.OK, "")
    assert listener.texts() == ["from a page"] * 2
    assert await app.perform(Publish(["a"], "")) == (m.OK, "Empty post requests are not allowed.")
    assert await app.perform(Publish(["a", "events"], "not for events")) == (m.OK, "")
    assert listener.texts() == ["not for events"]
    assert (await app.perform(Publish(["events"], "x")))[1] == "Only internal routines can change events channel."
    rig.store.failing = True
    assert await app.perform(Publish(["a"], "x")) == (m.OK, "The store could not keep it.")


@in_rig()
async def test_only_channels_with_a_stored_message_are_authorized(rig: Rig) -> None:
    app = PushApp(rig, authorized_channels_only=True, wildcard_channel_prefix="all_")
    await app.publish("a")
    assert await app.perform(Admit(["a", "all_x"])) == (m.OK, "")
    assert await app.perform(Admit(["a", "b"])) == (m.OK, "Subscriber could not create channels.")
    rig.store.failing = True
    assert await app.perform(Admit(["a"])) == (m.FAILED, None)


@pytest.mark.parametrize("asked", [Admit(["a*"]), Publish(["a", "b*"], "text")])
def test_what_the_device_side_cannot_ask(asked: Operation) -> None:
    @in_rig()
    async def scenario(rig: Rig) -> None:
        app = PushApp(rig)
        with pytest.raises(m.MessageError):
            rig.hub.core.operations.at(bytes(16), asked, lambda status, reply=None: None)
        assert await app.info("a") is None

    scenario()


@in_rig()
async def test_the_number_of_channels_holds_for_who_asks_before_it_subscribes(rig: Rig) -> None:
    app = PushApp(rig, max_number_of_channels=2)
    app.subscribe("a")
    assert await app.perform(Admit(["a", "b"])) == (m.OK, "")
    assert await app.perform(Admit(["b", "c"])) == (m.OK, "Number of channels were exceeded.")


def test_listeners_know_what_refuses_them() -> None:
    @in_rig()
    async def scenario(rig: Rig) -> None:
        app = PushApp(rig, max_number_of_channels=2)
        assert app.subscribe("a").subscribe("a", "b", "c") == [m.OK, m.OK, m.FULL]
        assert Listener(rig.worker(1)).subscribe("b", "d") == [m.OK, m.FULL]

    scenario()


# ---------------------------------------------------------------------- settings


def test_settings_that_cannot_hold_are_refused_at_start(capsys: pytest.CaptureFixture[str]) -> None:
    stored = ("pushstream.max_messages_stored_per_channel=30", "pushstream.max_message_bytes=80000")
    store = ("store.log_limit=20", "store.log_bytes=70000")
    sets = [part for one in (*stored, *store, "pushstream.events_channel_id=a*") for part in ("--set", one)]
    assert cli.run(["check-config", *sets]) == 0
    capsys.readouterr()
    assert cli.run(["check-config", *sets, "--set", "dialects.pushstream=true"]) == 2
    mend = "raise that, or lower this"
    events = "pushstream.events_channel_id: Channel id not authorized for this method."
    assert capsys.readouterr().err.splitlines() == [
        f"pushstream.max_messages_stored_per_channel: 30 messages, and store.log_limit allows 20; {mend}",
        f"pushstream.max_message_bytes: 80000 bytes, and store.log_bytes allows 70000; {mend}",
        events,
    ]
    live = [*sets, "--set", "dialects.pushstream=true", "--set", "pushstream.store_messages=false"]
    assert cli.run(["check-config", *live]) == 2
    assert capsys.readouterr().err.splitlines() == [events]
