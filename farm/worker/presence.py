"""The members of a presence channel, as a worker knows them. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from farm.dialects import Members


class Presence:
    """The members of a channel in the whole farm, and those that are here."""

    __slots__ = ("entering", "members", "own")

    def __init__(self) -> None:
        self.members = Members()  # user id -> info, as far as the router has sent them
        self.own: dict[str, int] = {}  # user id -> connections of it here, those that wait too
        self.entering: dict[str, int] | None = None  # user id -> the open call for it

    def left(self, user: str) -> bool:
        """A connection of this user has gone. Returns: whether it was its last one here."""
        connections = self.own[user] - 1
        if connections:
            self.own[user] = connections
            return False
        del self.own[user]
        return True

    def entered(self, user: str) -> int:
        """The call for this user is not open any more. Returns: its number; 0: there was none."""
        if self.entering is None:
            return 0
        call = self.entering.pop(user, 0)
        if not self.entering:
            self.entering = None
        return call

    def refuse(self, user: str) -> list[tuple[str, str]]:
        """The router does not let this user be a member. Returns: the members that have gone by this."""
        del self.own[user]
        info = self.members.pop(user, None)
        if info is None:
            return []
        self.members.made = None
        return [(user, info)]

    def merge(
        self, added: Iterable[tuple[str, str]], removed: Iterable[str]
    ) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
        """The router has sent members that have come and gone. Returns: those that were not known to have."""
        members, own = self.members, self.own
        # A user that is here stays: the router has sent this before it knew, and will know.
        gone = [(user, members.pop(user)) for user in removed if user in members and user not in own]
        new = [(user, info) for user, info in added if user not in members]
        if new or gone:
            members.update(new)
            members.made = None
        return new, gone
