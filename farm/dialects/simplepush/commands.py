"""The members of a SimplePush device's commands, and how they are read."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from router.common.uuids import is_id


class CommandError(Exception):
    """A command that is answered with an error of the table."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class _Update(msgspec.Struct, frozen=True, gc=False):
    """One update of an ack, as every device spells it."""

    channelID: str
    version: int


class _Ack(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """An ack in the usual form: by far the most frequent command."""

    messageType: Literal["ack"]
    updates: list[_Update]


decode_ack = msgspec.json.Decoder(_Ack).decode


class Fields:
    """A command's fields by their names in lower case, but for those that are null."""

    __slots__ = ("get",)

    def __init__(self, command: dict[str, Any]) -> None:
        self.get = {key.lower(): value for key, value in command.items() if value is not None}.get

    def text(self, name: str) -> str:
        """A text, empty if it is absent. Raises: CommandError."""
        value = self.get(name, "")
        if type(value) is not str:
            raise CommandError(108)
        return value

    def items(self, name: str) -> list[Any]:
        """A list, empty if it is absent. Raises: CommandError."""
        value = self.get(name, [])
        if type(value) is not list:
            raise CommandError(108)
        return value

    def required_list(self, name: str) -> list[Any]:
        """A list that must be there, if only an empty one. Raises: CommandError."""
        if self.get(name) is None:
            raise CommandError(107)
        return self.items(name)


def read_update(update: object) -> tuple[str, int]:
    if type(update) is not dict:
        raise CommandError(108)
    channel, version = update.get("channelID"), update.get("version")
    if channel is None or version is None:
        fields = Fields(update)
        channel, version = fields.get("channelid", ""), fields.get("version", 0)
    if type(version) is not int or not is_version(version):
        raise CommandError(108)
    return check_channel(channel), version


def is_version(number: int) -> bool:
    return -(2**63) <= number < 2**63


def check_channel(channel: object) -> str:
    if type(channel) is not str:
        raise CommandError(108)
    if not is_id(channel):
        raise CommandError(106)
    return channel
