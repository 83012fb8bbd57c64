"""Webhooks: what happens in an application's channels, told to the URLs in its settings; and how many subscribe to a
channel, told to its subscribers too.

`policy` is the pure part. As the observer of the dialect's channels (`router.core.channels`) it is told what happens,
holds back who may be back in a moment, and puts the rest into an `outbox` for each webhook that wants it. `sender` is
the thin one: it posts what the outboxes hold.

An event is appended to a log in the store, and is sent once it is there; how far a webhook has heard is a record
beside it. So what waits outlives the router, and after a crash a few events may be sent twice. Each outbox is one
sequence: its next request goes when the one before has been taken or given up.
"""
