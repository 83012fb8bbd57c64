"""What `router/cluster/cluster.lua` does, in Python, with a clock that is given: for simulations. A test holds the two
against each other on real servers."""

from __future__ import annotations

import re

from router.cluster.records import Command

_HIGHEST = 4503599627370496


def _number(text: str) -> int | None:
    return int(text) if re.fullmatch(r"[0-9]+", text) and float(text) < _HIGHEST else None


class Entry:
    """Where a router is."""

    def __init__(self, epoch: int, host: str, state: str, to: str) -> None:
        self.epoch, self.host, self.state, self.to = epoch, host, state, to

    def __str__(self) -> str:
        return f"{self.epoch} {self.host} {self.state} {self.to}"


class Records:
    """The keys of one cluster."""

    def __init__(self) -> None:
        self.hosts: dict[str, bytes] = {}
        self.routers: dict[str, str] = {}
        self.farm: dict[str, str] = {}

    def copy(self) -> Records:
        """As they are now."""
        found = Records()
        found.hosts, found.routers, found.farm = dict(self.hosts), dict(self.routers), dict(self.farm)
        return found

    def call(self, command: Command, now: int) -> list[object] | bytes:
        """The reply to a command of `router.cluster.records`. now: milliseconds of the server's clock."""
        what, me, record, lease, most, number = command[6:12]
        assert isinstance(me, str)
        assert isinstance(record, bytes)
        assert isinstance(lease, int)
        assert isinstance(most, int)
        assert isinstance(number, int)
        rest = [f"{part}" for part in command[12:]]
        clock, leases = self._hosts(f"{what}", me, lease, now)
        if what == "beat":
            if me not in leases:
                if len(leases) >= most:
                    return b"full"
                leases[me] = (0, 0, max(max((one[2] for one in leases.values()), default=0) + 1, clock))
            leases[me] = (clock + lease, clock, leases[me][2])
            self.farm[f"h:{me}"] = "{} {} {}".format(*leases[me])
            self.hosts[me] = record
        entries = self._entries(set(leases))
        running: dict[str, bool] = {}
        for key, text, ready in zip(*(rest[at : 3 * number : 3] for at in range(3)), strict=True):
            one, epoch = entries.get(key), int(text)
            if one is None or one.epoch < epoch or (one.epoch == epoch and one.host == "-"):
                entries[key] = Entry(epoch, me, "starting", "-")
            running[key] = ready == "1" and entries[key].epoch == epoch
        for key, one in entries.items():
            if what == "beat" and one.host == me and one.state != "giving":
                one.state, one.to = "ready" if running.get(key) else "starting", "-"
        rest = rest[3 * number :]
        for action, key, text, to in zip(*(rest[at::4] for at in range(4)), strict=True):
            _act(entries, set(leases), me, now, action, key, int(text), to)
        self.routers = {key: f"{one}" for key, one in entries.items()}
        self.hosts = {name: text for name, text in self.hosts.items() if name in leases}
        members: list[object] = []
        for name, text in self.hosts.items():
            members += [name.encode(), text, b"%d" % leases[name][1], b"%d" % leases[name][2]]
        places = [part.encode() for key, text in self.routers.items() for part in (key, text)]
        return [b"%d" % now, b"%d" % clock, members, places]

    def _hosts(self, what: str, me: str, lease: int, now: int) -> tuple[int, dict[str, tuple[int, int, int]]]:
        clock, seen, grace = (_number(self.farm.get(name, "")) for name in ("clock", "seen", "grace"))
        passed = 0 if seen is None else max(0, now - seen)
        clock = now if clock is None or seen is None else clock + min(passed, lease // 2)
        self.farm |= {"clock": f"{clock}", "seen": f"{now}"}
        given = passed > lease / 2 and not (grace is not None and 0 <= clock - grace < 4 * lease)
        if given:
            self.farm["grace"] = f"{clock}"
        leases: dict[str, tuple[int, int, int]] = {}
        for name, value in list(self.farm.items()):
            if not name.startswith("h:") or name == "h:":
                continue
            found = re.fullmatch(r"([0-9]+) ([0-9]+) ([0-9]+)", value)
            ends, last, first = (_number(part) or 0 for part in found.groups()) if found else (0, 0, 0)
            if given and clock - lease <= ends < clock + lease:
                ends = clock + lease
                self.farm[name] = f"{ends} {last} {first}"
            if ends < clock or ends > clock + 60_000 or (what == "leave" and name == f"h:{me}"):
                del self.farm[name]
            else:
                leases[name[2:]] = (ends, last, first)
        return clock, leases

    def _entries(self, living: set[str]) -> dict[str, Entry]:
        entries = {}
        for key, text in self.routers.items():
            found = re.fullmatch(r"([0-9]+) (\S+) ([a-z]+) (\S+)", text)
            epoch = _number(found[1]) if found else None
            if found and epoch is not None and re.fullmatch(r"[0-9]{1,3}", key):
                entries[key] = one = Entry(epoch, found[2], found[3], found[4])
                if one.host not in living and one.host != "-":
                    entries[key] = Entry(epoch, "-", "starting", "-")
        return entries


def _act(
    entries: dict[str, Entry], living: set[str], me: str, now: int, action: str, key: str, epoch: int, to: str
) -> None:
    one = entries.get(key)

    def higher(host: str) -> int:
        own = int(host[-5:], 16) if re.fullmatch("[0-9a-f]{5}", host[-5:]) else 0
        return max((one.epoch if one else 0) // 1000 + 1, now) * 1000 + own % 1000

    mine = one is not None and (one.epoch, one.host) == (epoch, me)
    if action == "take":
        if one is None or one.host == "-":
            entries[key] = Entry(higher(me), me, "starting", "-")
    elif action == "give":
        moves = any(
            other.state == "giving" or (other.state == "starting" and other.host not in ("-", me))
            for name, other in entries.items()
            if name != key
        )
        if (
            mine
            and one is not None
            and one.state != "giving"
            and (to == "-" or (to in living and to != me and not moves))
        ):
            one.state, one.to = "giving", to
    elif mine:
        host = to if to in living else "-"
        entries[key] = Entry(higher(host), host, "starting", "-")
