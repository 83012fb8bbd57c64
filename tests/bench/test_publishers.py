"""How app servers of a run choose among channels: `bench.load.publishers`."""

from collections import Counter, deque

from hypothesis import given
from hypothesis import strategies as st

from bench.load.publishers import Publishers


@given(st.integers(1, 20), st.integers(1, 20), st.lists(st.booleans(), min_size=50, max_size=50))
def test_channels_take_turns_while_some_are_busy(channels: int, connections: int, answered: list[bool]) -> None:
    app_servers = Publishers.__new__(Publishers)
    app_servers.paths = [b""] * channels
    app_servers.queue, app_servers.busy = deque(), set()
    under_way: deque[int] = deque()
    sent: Counter[int] = Counter()
    for first_is_answered in answered:
        if len(under_way) == min(connections, channels):
            place = 0 if first_is_answered else -1
            app_servers.busy.discard(under_way[place])
            del under_way[place]
        channel = app_servers._next()
        assert channel not in app_servers.busy
        app_servers.busy.add(channel)
        under_way.append(channel)
        sent[channel] += 1
    if connections == 1:
        assert max(sent.values()) - min(sent[channel] for channel in range(channels)) <= 1
    assert sum(sent.values()) == len(answered)
    left = Counter(app_servers.queue)
    # a channel that is busy for long is passed over, and has its turns left
    assert {sent[channel] + left[channel] for channel in range(channels)} == {max(sent[0] + left[0], 1)}
