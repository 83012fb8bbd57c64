"""The address map against a model: a plain set of devices for each lease."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule
from support.often import often

from router.core.address_map import STRETCH_MS, AddressMap, Lease

DEVICES = [b"device-%09d" % i for i in range(4)]
CHANNELS = [b"channel-%08d" % i for i in range(3)]


class Model(RuleBasedStateMachine):
    """Leases come and die; devices move; channels have any number of them."""

    leases = Bundle("leases")

    def __init__(self) -> None:
        super().__init__()
        self.map = AddressMap()
        self.holders: dict[bytes, Lease] = {}
        self.subscribers: dict[bytes, set[Lease]] = {channel: set() for channel in CHANNELS}
        self.all: list[Lease] = []

    @rule(target=leases, shard=st.integers(0, 3))
    def joins(self, shard: int) -> Lease:
        lease = Lease(shard, b"%d" % len(self.all))
        self.all.append(lease)
        return lease

    @rule(lease=consumes(leases))
    def dies(self, lease: Lease) -> None:
        lease.alive = False
        self.holders = {key: held for key, held in self.holders.items() if held is not lease}
        for leases in self.subscribers.values():
            leases.discard(lease)

    @rule(lease=leases, key=st.sampled_from(DEVICES))
    def attaches(self, lease: Lease, key: bytes) -> None:
        before = self.holders.get(key)
        assert self.map.attach(key, lease) is (before if before is not lease else None)
        self.holders[key] = lease

    @rule(lease=leases, key=st.sampled_from(DEVICES))
    def leaves(self, lease: Lease, key: bytes) -> None:
        mine = self.holders.get(key) is lease
        assert self.map.leave(key, lease) is mine
        if mine:
            del self.holders[key]

    @rule(lease=leases, key=st.sampled_from(CHANNELS))
    def subscribes(self, lease: Lease, key: bytes) -> None:
        self.map.subscribe(key, lease)
        self.subscribers[key].add(lease)

    @rule(lease=leases, key=st.sampled_from(CHANNELS))
    def unsubscribes(self, lease: Lease, key: bytes) -> None:
        self.map.unsubscribe(key, lease)
        self.subscribers[key].discard(lease)

    @rule(key=st.sampled_from(DEVICES))
    def device(self, key: bytes) -> None:
        assert self.map.device(key) is self.holders.get(key)

    @rule(key=st.sampled_from(CHANNELS))
    def channel(self, key: bytes) -> None:
        found = self.map.channel(key)
        assert len(found) == len(set(found))
        assert set(found) == self.subscribers[key]

    @rule(budget=st.integers(1, 4))
    def sweeps(self, budget: int) -> None:
        before = len(self.map)
        assert self.map.sweep(budget) == before - len(self.map)

    @rule()
    def sweeps_all(self) -> None:
        # From wherever it stands: to the end of the table, and once round.
        for _ in range(2):
            self.map.sweep(100)
        kept = len(self.holders) + sum(bool(leases) for leases in self.subscribers.values())
        assert len(self.map) == kept

    @invariant()
    def nothing_living_is_lost(self) -> None:
        kept = len(self.holders) + sum(bool(leases) for leases in self.subscribers.values())
        assert len(self.map) >= kept

    @invariant()
    def living_leases_count_their_devices(self) -> None:
        for lease in self.all:
            if lease.alive:
                assert lease.devices == sum(held is lease for held in self.holders.values())

    def teardown(self) -> None:
        for key in DEVICES:
            assert self.map.device(key) is self.holders.get(key)
        for key in CHANNELS:
            assert set(self.map.channel(key)) == self.subscribers[key]


TestAddressMap = Model.TestCase
TestAddressMap.settings = settings(max_examples=often(100), stateful_step_count=40)


def test_a_sweep_in_small_steps_comes_round() -> None:
    addresses = AddressMap()
    dead, alive = Lease(0, b"a"), Lease(1, b"b")
    for number in range(100):
        addresses.attach(b"%016d" % number, dead if number % 3 else alive)
    dead.alive = False
    dropped = [addresses.sweep(7) for _ in range(100 // 7 + 1)]
    assert sum(dropped) == 66
    assert max(dropped) <= 7
    assert len(addresses) == 34


def test_a_channel_of_several_shards_loses_only_the_dead_one() -> None:
    addresses = AddressMap()
    first, second, third = (Lease(shard, b"") for shard in range(3))
    for lease in (first, second, third):
        addresses.subscribe(CHANNELS[0], lease)
    second.alive = False
    addresses.sweep(10)
    assert addresses.channel(CHANNELS[0]) == (first, third)
    first.alive = third.alive = False
    assert addresses.channel(CHANNELS[0]) == ()
    assert len(addresses) == 0


def test_since_when_a_device_is_held_is_known_and_shared_by_all_that_came_at_once() -> None:
    addresses, lease, other = AddressMap(), Lease(0, b"a"), Lease(1, b"b")
    keys = [b"%016d" % number for number in range(4)]
    for key, since in zip(keys, (10_000, 10_000 + STRETCH_MS - 1, 10_000 + STRETCH_MS, 500), strict=True):
        addresses.attach(key, lease, since)
    assert [addresses.since(key) for key in keys] == [10_000, 10_000, 10_000 + STRETCH_MS, 500]
    assert len({id(addresses._holders[key]) for key in keys}) == 3
    assert addresses.attach(keys[0], other, 20_000) is lease
    assert addresses.since(keys[0]) == 20_000
    assert addresses.attach(keys[1], lease, 30_000) is None
    assert (addresses.since(keys[1]), lease.devices, other.devices) == (30_000, 3, 1)
    assert addresses.since(b"unknown" * 2) == addresses.since(CHANNELS[0]) == 0
    assert addresses.sweep(10, 20_000) == 0
    assert [addresses.since(key) for key in keys] == [20_000, 30_000, 0, 0]
    assert addresses._holders[keys[2]] is addresses._holders[keys[3]]  # of long ago one is kept for all
    assert all(addresses.device(key) is (other if key is keys[0] else lease) for key in keys)
    lease.alive = False
    assert addresses.sweep(10, 20_000) == 3
