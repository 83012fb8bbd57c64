"""Which partition a key is in, and who owns it on one host."""

from __future__ import annotations

from collections import Counter
from uuid import UUID

import pytest

from router.common.partitions import PARTITIONS, fixed_owners, key_in, partition


def test_a_key_stays_in_its_partition() -> None:
    # Written down, because stores are cut by it: another number would lose what is stored.
    assert partition(bytes(16)) == 341
    assert partition(bytes(range(16))) == 136
    assert partition(b"\xff" * 16) == 26


def test_uuids_are_spread_evenly_in_spite_of_their_constant_bits() -> None:
    keys = (UUID(int=number, version=4).bytes for number in range(PARTITIONS * 200))
    found = Counter(map(partition, keys))

    assert len(found) == PARTITIONS
    assert max(found.values()) < 2 * 200


def test_a_key_can_be_made_for_every_partition() -> None:
    for label in (b"", b"a", bytes(range(16)), b"\xff" * 40):
        keys = [key_in(number, label) for number in range(PARTITIONS)]

        assert [partition(key) for key in keys] == list(range(PARTITIONS))
        assert {(len(key), key[:14]) for key in keys} == {(16, label[:14].ljust(14, b"\0"))}
    # Written down, as what is stored has such keys.
    assert key_in(341, b"") == bytes(16)
    assert key_in(7, b"label").hex() == "6c6162656c0000000000000000000018"


@pytest.mark.parametrize("routers", (1, 2, 3, 7, 16, 511, 512))
def test_routers_of_a_host_have_as_many_partitions_each(routers: int) -> None:
    owned = Counter(fixed_owners(routers))

    assert set(owned) == set(range(routers))
    assert max(owned.values()) - min(owned.values()) <= 1


@pytest.mark.parametrize("routers", (0, -1, 513))
def test_a_number_of_routers_that_cannot_be_is_refused(routers: int) -> None:
    with pytest.raises(ValueError, match="1 to 512 routers"):
        fixed_owners(routers)
