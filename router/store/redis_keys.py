"""Names of the keys in Redis and Valkey, and the partition that each is of. Pure.

| key | type | holds |
|---|---|---|
| `prefix:{t}:fence` | hash | who owns the partition: see `router.store.redis_ownership` |
| `prefix:{t}:i:device` | hash | slot -> item |
| `prefix:{t}:full` | set | devices with items, and some whose last one has gone since the last sweep |
| `prefix:{t}:r:space:key` | string | expiry and value of a record |
| `prefix:{t}:h:channel` | string | the head of a log |
| `prefix:{t}:l:channel` | sorted set | offset -> event |

Beside these the first partition has `prefix:{t}:cluster:...`, the hosts of a cluster: see `router.cluster.records`.

`{t}` is the hash tag of a partition. A cluster puts all keys with one tag into the same slot; so a partition is on
one server, whole, and a script reaches all of it. The tags are such that each of 512 equal parts of the cluster's slots
has one partition: however the slots are divided, each server has its share.

The names are for ever: what another release wrote has to be found. What is changed all the same, in a name or in what
stands under it, raises `LAYOUT`.
"""

from __future__ import annotations

from functools import cache
from typing import Final

LAYOUT: Final = 1
"""Of all these keys. It is raised when a release writes something that the one before would misread, and not else: an
older release leaves partitions of a newer layout alone, and hosts of a cluster have to have the same. What is stored is
brought up to date by `migrations` in `redis_lua/ownership.lua`."""
_TAGS: Final = """
ru cv 7g 14 6y cr 7c 10 6u 029 7o bd 6q cz 7k 18 6l cg 7v 0oc 6h cc 7r by 6d 07 sv bu 9a 03 7z bq ae 4n 018 5t
29 4j oz 5p 25 4f ov qt 21 4b or 5x at 3 36 5e ap 7 32 5a 0cc 4w og 5m ax 4s oc 5i kz 1p 69 0j 058 1t ee 0n ds
1x 61 0b dw ut 65 0f 72 1a ep ts 76 1e et tw db 1i ex 0s df 1m 0gc 0w 3c 50 2y f 3g 54 vu b 3k 58 2q n 3o fd 2u
j 3r fy 2h w 3v 0db 2l s 3z fq a8 43 wv fu 2d 47 cw rt 15 7f cs 6x 11 7b 028 6t be 7n lz 6p 19 7j cf 6m 0ob 7w
cb 6i bx 7s 06 6e bt sw 02 6a bp 8z 4o ad 5u 019 4k 28 5q 0be 4g 24 qu ow 4c 20 5y os 2 au 5d 37 6 aq f8 33 4v
0cb 5l of 4r ay 5h ob 1q dz 0k 68 1u 059 0o ed 1y dr 0c 60 uu dv 0g 64 b8 73 0z eq 1d 77 tv eu 1h dc 0r ey 1l dg
0v 0gb 51 3b g 2x 55 3f c vt 59 3j o 2p fe 3n k 2t fx 3s v 2i 0dc 3w r 2m fp ws 42 2a ft ww z 2e 7e 16 rw ct 7a
12 9z cp 7m bf 6w 0ac 7i bb 6s cx 7t 038 6n ce 7p mz 6j 09 st bw 6f 05 7x bs 6b 01 0bb 5v ag 4l ox 5r ac 4h ot
qv 27 4d op 5z 23 g8 34 5g av 1 30 5c ar 5 oe 5o 009 9 38 5k az 4q ec 0h dy 1r eg 0l 0fb 1v 63 c8 dq 1z 67 0d du
uv er 0y 70 1c ev tu 74 1g ez 0q 78 1k 049 0u dd 1o vs d 3a 52 vw gt 3e 56 2s l 3i fb 2w h 3m ff 2j u 3p iz 2n q
3t 078 2b 41 3x fs 2f y wt fw 17 7d cu rv 13 8a cq 6z bg 7l 0ab 6v bc 7h cy 6r 039 7u cd 6o bz 7q 08 6k bv su 04
6g br 7y 00 6c 5w 0bc 4m af 5s oy 4i ab qw ou 4e 26 qs oq 4a 22 5f 35 0 aw 5b 31 4 as 5n od 8 008 5j 39 4p nz 0i
eb 1s dx 0m ef 1w 0fc 0a 62 us dp 0e 66 uw dt 0x es 1b 71 tt ew 1f 75 0p jz 1j 79 0t 048 1n de e 2z 53 o9 a vv
57 3d m 2r fc 3h i 2v fg 3l t 2k fz 3q p 2o 079 3u 40 2c fr 3y x 2g fv wu
"""
TAGS: Final = tuple(_TAGS.split())
"""Of each partition. The tag of partition p is in one of the slots from 32 p to 32 p + 31."""


@cache
def bases(prefix: str) -> tuple[bytes, ...]:
    """What the names of all keys of a partition begin with, for each partition."""
    return tuple(f"{prefix}:{{{tag}}}:".encode() for tag in TAGS)


def fence(base: bytes) -> bytes:
    """The key that says who owns a partition."""
    return base + b"fence"
