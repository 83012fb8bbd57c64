"""Stock Firefox against a whole farm: a page subscribes, senders that are not ours push, its service worker gets it.

One farm and one Firefox serve all tests; each test has a page of its own, whose service worker posts what arrives to
the test's web server. Firefox is started twice in all: the second time to see what came while it was closed.
"""

from __future__ import annotations

import base64
import json
from collections import defaultdict
from collections.abc import Iterator
from typing import Any, Final

import pytest
import requests
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from pywebpush import WebPushException, webpush
from support.farm_fixture import Farm, running_farm, until
from support.firefox import Firefox, find_firefox, push_prefs
from support.installed import run_npm
from support.web_site import Reply, Request, Site
from support.webpush_demo import addresses, running_demo

RECONNECT_S: Final = 60.0
"""Firefox reconnects 5 s after its push server has ended, or 10, 20, 40 s if that was too soon."""

SUBJECT: Final = "mailto:tests@example.org"

PAGE: Final = """<!doctype html><title>test</title><script>
async function registered() {
  await navigator.serviceWorker.register("worker.js");
  return navigator.serviceWorker.ready;
}
async function subscribe(key) {
  const { pushManager } = await registered();
  const options = key ? { applicationServerKey: key } : {};
  return pushManager.subscribe({ userVisibleOnly: true, ...options });
}
async function unsubscribe() {
  const { pushManager } = await registered();
  return (await pushManager.getSubscription()).unsubscribe();
}
</script>"""

WORKER: Final = """
self.addEventListener("install", () => self.skipWaiting());
self.addEventListener("push", (event) => {
  const body = JSON.stringify(event.data ? event.data.text() : null);
  event.waitUntil(fetch("arrived", { method: "POST", body }));
});
"""

TEXT: Final = "Grüße, 世界 " + "x" * 1000


class VapidKey:
    """An application server's key, in the forms that senders and pages take."""

    def __init__(self) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        self.private = _base64url(key.private_numbers().private_value.to_bytes(32, "big"))
        self.public = _base64url(key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint))


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class PushSite(Site):
    """A page for each name, and what the service worker of each has received."""

    def __init__(self) -> None:
        super().__init__()
        self.arrived: dict[str, list[str | None]] = defaultdict(list)

    def get(self, request: Request) -> Reply:
        if request.path.endswith("/worker.js"):
            return Reply(WORKER, "text/javascript")
        return Reply(PAGE)

    def post(self, request: Request) -> Reply:
        self.arrived[request.path.split("/")[1]].append(json.loads(request.body))
        return Reply("", "text/plain")


@pytest.fixture(scope="module")
def program() -> str:
    return find_firefox()


@pytest.fixture(scope="module")
def farm(program: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    with running_farm(tmp_path_factory.mktemp("farm") / "data") as found:
        yield found


@pytest.fixture(scope="module")
def firefox(program: str, farm: Farm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Firefox]:
    with Firefox(program, tmp_path_factory.mktemp("firefox"), push_prefs(farm.device_url)) as found:
        yield found


@pytest.fixture(scope="module")
def site() -> Iterator[PushSite]:
    with PushSite() as found:
        yield found


@pytest.fixture(scope="module")
def key() -> VapidKey:
    return VapidKey()


class Page:
    """The page of one test."""

    def __init__(self, firefox: Firefox, site: PushSite, name: str) -> None:
        self._firefox = firefox
        self._arrived = site.arrived[name]
        firefox.open(site.url(f"/{name}/"))

    def subscribe(self, key: VapidKey | None = None) -> dict[str, Any]:
        """Returns: the subscription as the page would send it to its app server."""
        found: dict[str, Any] = self._firefox.call("subscribe", key.public if key else None)
        return found

    def unsubscribe(self) -> None:
        assert self._firefox.call("unsubscribe") is True

    def arrived(self, count: int, patience: float = 20.0) -> list[str | None]:
        """Wait until so many pushes have arrived. Returns: all that have, in no order."""
        until(lambda: len(self._arrived) >= count, f"{count} pushes in the service worker", patience)
        return sorted(self._arrived, key=str)


@pytest.fixture
def page(firefox: Firefox, site: PushSite, request: pytest.FixtureRequest) -> Page:
    name = "".join(letter if letter.isalnum() else "-" for letter in request.node.name)
    return Page(firefox, site, name)


def push(
    subscription: dict[str, Any],
    text: str | None = None,
    key: VapidKey | None = None,
    encoding: str = "aes128gcm",
    **headers: str,
) -> int:
    """Send by pywebpush. Returns: the farm's status."""
    session = requests.Session()
    session.trust_env = False  # no proxy of this machine
    try:
        answer = webpush(
            subscription,
            data=text,
            vapid_private_key=key.private if key else None,
            vapid_claims={"sub": SUBJECT} if key else None,
            content_encoding=encoding,
            ttl=600,
            headers=headers,
            timeout=20,
            requests_session=session,
        )
    except WebPushException as error:
        assert error.response is not None, error
        return int(error.response.status_code)
    return int(answer.status_code)


# ---------------------------------------------------------------------- subscribing and receiving


@pytest.mark.parametrize("encoding", ["aes128gcm", "aesgcm"])
@pytest.mark.parametrize("with_key", [False, True])
def test_a_push_reaches_the_service_worker(
    farm: Farm, page: Page, key: VapidKey, with_key: bool, encoding: str
) -> None:
    signer = key if with_key else None
    subscription = page.subscribe(signer)
    assert subscription["endpoint"].startswith(farm.url("/wpush/v2/" if with_key else "/wpush/v1/"))
    assert push(subscription, TEXT, signer, encoding) == 201
    assert page.arrived(1) == [TEXT]


def test_a_push_without_a_payload(page: Page) -> None:
    subscription = page.subscribe()
    assert push(subscription) == 201
    assert page.arrived(1) == [None]


def test_a_subscription_with_a_key_is_for_that_key_only(page: Page, key: VapidKey) -> None:
    subscription = page.subscribe(key)
    assert push(subscription, "unsigned") == 401
    assert push(subscription, "of another key", VapidKey()) == 401
    assert push(subscription, "its own", key) == 201
    assert page.arrived(1) == ["its own"]


@pytest.mark.parametrize("encoding", ["aes128gcm", "aesgcm"])
def test_a_push_by_the_npm_package(page: Page, key: VapidKey, encoding: str) -> None:
    vapid = {"subject": SUBJECT, "publicKey": key.public, "privateKey": key.private}
    options = {"vapidDetails": vapid, "TTL": 600, "contentEncoding": encoding, "topic": "npm", "urgency": "high"}
    order = {"subscription": page.subscribe(key), "payload": TEXT, "options": options}
    answer = run_npm("web-push.mjs", "web-push", order)
    assert answer["status"] == 201, answer
    assert page.arrived(1) == [TEXT]


def test_after_an_unsubscribe_senders_get_410(page: Page, key: VapidKey) -> None:
    subscription = page.subscribe(key)
    assert push(subscription, "before", key) == 201
    assert page.arrived(1) == ["before"]
    page.unsubscribe()  # Firefox sends that to its push server later, in its own time
    until(lambda: push(subscription, "after", key) == 410, "410 for the sender")
    assert page.arrived(1)[0] == "before"


# ---------------------------------------------------------------------- away and back


def test_what_came_while_firefox_was_closed(farm: Farm, firefox: Firefox, page: Page, key: VapidKey) -> None:
    """Of two topics one is replaced meanwhile; what was received and acked before does not come again."""
    subscription = page.subscribe(key)
    acks = farm.status()["routers"][0]["acks"]
    assert push(subscription, "before", key) == 201
    assert page.arrived(1) == ["before"]
    until(lambda: farm.status()["routers"][0]["acks"] > acks, "Firefox's ack")
    firefox.stop()
    sent = [("plain 1", {}), ("old news", {"Topic": "news"}), ("weather", {"Topic": "weather"})]
    sent += [("new news", {"Topic": "news"}), ("plain 2", {"Urgency": "low"})]
    for text, headers in sent:
        assert push(subscription, text, key, **headers) == 201
    firefox.start()
    expected = ["before", "new news", "plain 1", "plain 2", "weather"]
    assert page.arrived(5, RECONNECT_S) == expected
    assert push(subscription, "zuletzt", key) == 201
    assert page.arrived(6) == [*expected, "zuletzt"]


def test_the_farm_is_killed_and_comes_back(farm: Farm, page: Page, key: VapidKey) -> None:
    """Every process at once, by SIGKILL. Firefox comes back by itself, to the subscription that it had."""
    subscription = page.subscribe(key)
    assert push(subscription, "before", key) == 201
    assert page.arrived(1) == ["before"]
    farm.kill()
    farm.start()
    assert push(subscription, "meanwhile", key) == 201
    assert page.arrived(2, RECONNECT_S) == ["before", "meanwhile"]
    assert push(subscription, "now", key) == 201
    assert page.arrived(3) == ["before", "meanwhile", "now"]


# ---------------------------------------------------------------------- the demo


def test_the_demo_page(farm: Farm, firefox: Firefox) -> None:
    def click(element: str) -> None:
        firefox.evaluate(f"document.getElementById('{element}').click()")

    def said(element: str, kind: str) -> str:
        """Wait until a step shows a message of this kind (good or bad). Returns: the message."""
        node = f"document.getElementById('{element}')"
        until(lambda: firefox.evaluate(f"{node}.className") == f"said {kind}", f"{element} is {kind}", 40)
        return str(firefox.evaluate(f"{node}.textContent"))

    def send(text: str, topic: str = "") -> None:
        firefox.evaluate(f"document.getElementById('text').value = {json.dumps(text)}")
        firefox.evaluate(f"document.getElementById('topic').value = {json.dumps(topic)}")
        firefox.evaluate("document.getElementById('send').requestSubmit()")

    with running_demo(*addresses(farm)) as url:
        firefox.open(url)
        assert said("farm-said", "good")
        send("too early")
        assert "Subscribe first" in said("send-said", "bad")

        # A Firefox that uses another push server, or a demo that was started for another farm.
        firefox.evaluate("document.body.dataset.endpoint = 'https://elsewhere.example'")
        click("subscribe")
        assert "dom.push.serverURL" in said("subscribe-said", "bad")
        firefox.evaluate(f"document.body.dataset.endpoint = {json.dumps(farm.url(''))}")

        click("subscribe")
        said("subscribe-said", "good")
        endpoint = str(firefox.evaluate("document.getElementById('endpoint').textContent"))
        assert endpoint.startswith(farm.url("/wpush/v2/"))
        send("Hello, Firefox", "greeting")
        assert said("send-said", "good").startswith("201")
        lines = "[...document.querySelectorAll('#arrived li')]"
        arrived = f"{lines}.map((line) => [...line.children].map((part) => part.textContent))"
        (row,) = until(lambda: firefox.evaluate(arrived), "the push in the page's list")
        assert row[1] == "Hello, Firefox" and row[2].endswith("ms"), row

        # What has arrived and the subscription are still there when the page is loaded again.
        firefox.open(url)
        said("subscribe-said", "good")
        assert until(lambda: firefox.evaluate(arrived), "the list of before")[0][1] == "Hello, Firefox"

        click("unsubscribe")
        until(lambda: firefox.evaluate("document.getElementById('unsubscribe').hidden"), "unsubscribed")

        def gone() -> bool:
            send("to nobody")
            until(lambda: "Sending" not in firefox.evaluate("document.getElementById('send-said').textContent"), "sent")
            return "410" in firefox.evaluate("document.getElementById('send-said').textContent")

        until(gone, "410 is shown")
        assert "subscribe again" in said("send-said", "bad")
