"""Webhooks: what happens in an application's channels is posted to the URLs in its settings; and the number of a
channel's subscribers is sent to its subscribers, too.

`policy` is the pure part. It observes the dialect's channels (`router.core.channel`), delays what may be undone in a
moment, and puts events into an `outbox` for each webhook that wants them. `sender` is the thin part: it posts what the
outboxes hold.

An event is appended to a log in the store, and is sent once it is there; a record beside it holds the position up to
which a webhook has got the log. So waiting events outlive the router, and after a crash a few may be sent twice. Each
outbox is one sequence: its next request is sent when the one before has been taken or given up.

What was told, that a channel is occupied or a user a member, is kept in the store too (`told`). A router that is new
compares it with what all workers have announced, before it tells anything: so whatever has ended meanwhile is told.

With several routers, an event is made by the owner of its channel and sent by the owner of the outbox, to whom it is
handed (`elsewhere`). What is on the way is in the memory of the former.
"""
