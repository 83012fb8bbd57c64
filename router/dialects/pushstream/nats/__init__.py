"""Notifications from a queue, as gogin took them: a NATS server has them, and they are published to channels.

`options` are the settings, `notification` what a message is, `client` the thread in which the client library has its
event loop, and `service` what the router does with the messages.

Without a stream a message that comes while the router is away is lost, as NATS has it. From a stream (JetStream) a
message is acknowledged when the store has it: so it comes at least once, and twice where the router dies between the
two.
"""
