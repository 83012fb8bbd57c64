"""The SQL of logs in the store on disk: their tables, what an append does, and what is read from a position."""

from __future__ import annotations

from typing import Final

from router.common.numbers import SECOND
from router.store.base import EVENT_BYTES
from router.store.memory import HEAD_GRACE

NEVER: Final = 2**63 - 1
FEW_DROPPED: Final = 16

# What is known of a log besides its events: see `router.store.memory_log`, whose names these are.
LOG_TABLES: Final = f"""
CREATE TABLE head (channel TEXT NOT NULL PRIMARY KEY, epoch INTEGER NOT NULL, last INTEGER NOT NULL,
    expires INTEGER NOT NULL, until INTEGER NOT NULL DEFAULT 0, number INTEGER NOT NULL DEFAULT 0,
    bytes INTEGER NOT NULL DEFAULT 0, next_expiry INTEGER NOT NULL DEFAULT {NEVER},
    lost INTEGER NOT NULL DEFAULT 0, lost_sequence INTEGER NOT NULL DEFAULT 0) STRICT, WITHOUT ROWID;
CREATE TABLE event (channel TEXT NOT NULL, position INTEGER NOT NULL, expires INTEGER NOT NULL,
    sequence INTEGER NOT NULL, bytes INTEGER NOT NULL, id TEXT NOT NULL, headers TEXT NOT NULL, body TEXT NOT NULL,
    PRIMARY KEY (channel, position)) STRICT, WITHOUT ROWID;"""

FROM_FIRST: Final = f"""
ALTER TABLE head RENAME TO head_1;
ALTER TABLE event RENAME TO event_1;
{LOG_TABLES}
INSERT INTO event SELECT channel, position, expires, 0, length(CAST(body AS BLOB)), '', '', body FROM event_1;
INSERT INTO head SELECT channel, epoch, last, h.expires, 0, count(position), coalesce(sum(e.bytes), 0),
        coalesce(min(e.expires), {NEVER}), coalesce(min(position) - 1, last), 0
    FROM head_1 AS h LEFT JOIN event AS e USING (channel) GROUP BY channel;
DROP TABLE head_1;
DROP TABLE event_1;
UPDATE meta SET epoch = {{epoch}};
"""
"""Makes the second schema of the first one, whose events had neither time nor ID, and all offsets."""

# What is not the usual course of an append goes to a table whose trigger does it: `ended`, a log that has come to its
# end or has events that have; `overfull`, one that has too many: first a few are looked at, and only if these were not
# enough all of them, but for the one that is `kept`.
LOG_BATCH: Final = """
CREATE TEMP TABLE appended (place INTEGER PRIMARY KEY, epoch INTEGER NOT NULL, position INTEGER NOT NULL);
CREATE TEMP TABLE ended (id INTEGER PRIMARY KEY, channel TEXT NOT NULL, now INTEGER NOT NULL, whole INTEGER NOT NULL);
CREATE TEMP TABLE overfull (few INTEGER PRIMARY KEY, channel TEXT NOT NULL, most INTEGER NOT NULL,
    most_bytes INTEGER NOT NULL, kept INTEGER NOT NULL);
CREATE TEMP TABLE dropped (position INTEGER PRIMARY KEY, sequence INTEGER NOT NULL, bytes INTEGER NOT NULL);

CREATE TEMP TRIGGER log_ended AFTER INSERT ON ended WHEN NEW.whole BEGIN
    DELETE FROM event WHERE channel = NEW.channel;
    DELETE FROM head WHERE channel = NEW.channel;
    UPDATE meta SET epoch = max(epoch + {epoch_step}, NEW.now * 1000 * {epoch_step} + (epoch & {router_mask}));
END;

CREATE TEMP TRIGGER events_ended AFTER INSERT ON ended WHEN NOT NEW.whole BEGIN
    UPDATE head SET (lost, lost_sequence, number, bytes) = (
            SELECT max(lost, coalesce(max(e.position), 0)), max(lost_sequence, coalesce(max(e.sequence), 0)),
                number - count(*), head.bytes - coalesce(sum(e.bytes), 0)
            FROM main.event AS e WHERE e.channel = NEW.channel AND e.expires <= NEW.now)
        WHERE channel = NEW.channel;
    DELETE FROM event WHERE channel = NEW.channel AND expires <= NEW.now;
    UPDATE head SET next_expiry = coalesce(
            (SELECT min(expires) FROM main.event AS e WHERE e.channel = NEW.channel), {never})
        WHERE channel = NEW.channel;
END;

CREATE TEMP TRIGGER log_overfull AFTER INSERT ON overfull WHEN EXISTS (SELECT 1 FROM main.head
        WHERE channel = NEW.channel AND (number > NEW.most OR bytes > NEW.most_bytes)) BEGIN
    DELETE FROM dropped;
    INSERT INTO dropped SELECT position, sequence, bytes FROM (
            SELECT position, sequence, bytes, row_number() OVER lowest - 1 AS events,
                sum(bytes) OVER lowest - bytes AS bytes_before
            FROM (SELECT position, sequence, bytes FROM main.event WHERE channel = NEW.channel
                AND position <> NEW.kept ORDER BY position LIMIT NEW.few)
            WINDOW lowest AS (ORDER BY position ROWS UNBOUNDED PRECEDING))
        WHERE events < (SELECT h.number - NEW.most FROM main.head AS h WHERE h.channel = NEW.channel)
            OR bytes_before < (SELECT h.bytes - NEW.most_bytes FROM main.head AS h WHERE h.channel = NEW.channel);
    UPDATE head SET (lost, lost_sequence, number, bytes) = (
            SELECT max(lost, coalesce(max(d.position), 0)), max(lost_sequence, coalesce(max(d.sequence), 0)),
                number - count(*), head.bytes - coalesce(sum(d.bytes), 0)
            FROM temp.dropped AS d)
        WHERE channel = NEW.channel;
    DELETE FROM event WHERE channel = NEW.channel AND position IN (SELECT position FROM temp.dropped);
END;

CREATE TEMP VIEW log_batch AS SELECT 0 AS kind, '' AS channel, '' AS id, 0 AS position, 0 AS sequence, 0 AS expires,
    0 AS exact, '' AS body, 0 AS now, 0 AS place, 0 AS bytes, '' AS headers, 0 AS most, 0 AS most_bytes;

CREATE TEMP TRIGGER log_written INSTEAD OF INSERT ON batch WHEN NEW.kind >= 3 BEGIN
    INSERT INTO log_batch VALUES (NEW.kind, NEW.key, NEW.name, NEW.version, NEW.seq, NEW.expires, NEW.urgency,
        NEW.body, NEW.now, NEW.more ->> 0, NEW.more ->> 1, NEW.more ->> 2, NEW.more ->> 3, NEW.more ->> 4);
END;

CREATE TEMP TRIGGER event_appended INSTEAD OF INSERT ON log_batch WHEN NEW.kind = 3 BEGIN
    INSERT OR REPLACE INTO ended SELECT 1, NEW.channel, NEW.now, until BETWEEN 1 AND NEW.now FROM main.head
        WHERE channel = NEW.channel AND (next_expiry <= NEW.now OR until BETWEEN 1 AND NEW.now);
    SELECT RAISE(IGNORE) WHERE NEW.exact AND (NEW.bytes > NEW.most_bytes
        OR EXISTS (SELECT 1 FROM main.event WHERE channel = NEW.channel AND position = NEW.position));
    SELECT RAISE(IGNORE) FROM main.head WHERE NOT NEW.exact AND channel = NEW.channel AND last >= {max_offset};
    INSERT INTO head (channel, epoch, last, expires, number, bytes, next_expiry)
        SELECT NEW.channel, epoch, max(1, NEW.position), NEW.expires, 1, NEW.bytes, NEW.expires
        FROM main.meta WHERE true
        ON CONFLICT (channel) DO UPDATE SET
            last = CASE WHEN NEW.exact THEN max(last, NEW.position) ELSE max(last + 1, NEW.position) END,
            expires = max(expires, NEW.expires), number = number + 1, bytes = bytes + NEW.bytes,
            next_expiry = min(next_expiry, NEW.expires);
    INSERT INTO appended SELECT NEW.place, epoch, CASE WHEN NEW.exact THEN NEW.position ELSE last END FROM main.head
        WHERE channel = NEW.channel;
    INSERT INTO event SELECT NEW.channel, position, NEW.expires, NEW.sequence, NEW.bytes, NEW.id, NEW.headers, NEW.body
        FROM temp.appended WHERE place = NEW.place;
    INSERT OR REPLACE INTO overfull SELECT f.column1, NEW.channel, NEW.most, NEW.most_bytes,
            NEW.exact * NEW.position
        FROM main.head AS h CROSS JOIN (VALUES ({few_dropped}), ({never})) AS f
        WHERE h.channel = NEW.channel AND (h.bytes > NEW.most_bytes
            OR h.number > CASE f.column1 WHEN {never} THEN NEW.most + {few_dropped} ELSE NEW.most END);
END;

CREATE TEMP TRIGGER log_expires INSTEAD OF INSERT ON log_batch WHEN NEW.kind = 4 BEGIN
    INSERT OR REPLACE INTO ended SELECT 1, NEW.channel, NEW.now, 1 FROM main.head
        WHERE channel = NEW.channel AND (NEW.expires BETWEEN 1 AND NEW.now OR until BETWEEN 1 AND NEW.now);
    INSERT INTO head (channel, epoch, last, expires, until)
        SELECT NEW.channel, epoch, 0, 0, NEW.expires FROM main.meta WHERE NEW.expires > NEW.now
        ON CONFLICT (channel) DO UPDATE SET until = NEW.expires;
    UPDATE head SET until = 0 WHERE channel = NEW.channel AND NEW.expires = 0;
END;
"""

# Of a log: ?1 are its channel and position as (channel, kind, a, b, text, most): kinds are those of
# `router.common.position`, with sequences in the place of times; most: bytes of events. ?3: so many of the newest are
# read where these are asked for, because SQLite takes no column there. `found` is for an ID: twice the offset of the
# first event that has it or comes after the time, and 1 more if it is by its ID. `upto`: the offset where `most` is
# reached. What becomes of the position is decided by the reader of the answer: it has what it missed, as (offset,
# sequence), and its events.
READ_LOGS: Final = f"""
WITH asked AS MATERIALIZED (
    SELECT q.key AS place, q.value ->> 1 AS kind, q.value ->> 2 AS a, q.value ->> 3 AS b, q.value ->> 5 AS most,
        coalesce(h.channel, '') AS channel, coalesce(h.epoch, (SELECT epoch FROM meta)) AS epoch,
        coalesce(h.last, 0) AS last, coalesce(h.lost, 0) AS lost, coalesce(h.lost_sequence, 0) AS lost_sequence,
        coalesce(h.next_expiry <= ?2, 0) AS expired, coalesce(h.bytes + {EVENT_BYTES} * h.number, 0) AS size,
        CASE q.value ->> 1
            WHEN 1 THEN (SELECT e.position FROM event AS e WHERE e.channel = h.channel AND e.expires > ?2
                ORDER BY e.position DESC LIMIT 1 OFFSET ?3)
            WHEN 3 THEN (SELECT 2 * e.position + (e.id = q.value ->> 4 AND e.id <> '') FROM event AS e
                WHERE e.channel = h.channel AND e.expires > ?2
                    AND ((e.id = q.value ->> 4 AND e.id <> '') OR e.sequence > q.value ->> 2)
                ORDER BY e.position LIMIT 1)
        END AS found
    FROM json_each(CAST(?1 AS TEXT)) AS q LEFT JOIN head AS h
        ON h.channel = q.value ->> 0 AND NOT h.until BETWEEN 1 AND ?2),
from_there AS MATERIALIZED (
    SELECT *, CASE kind
            WHEN 0 THEN last
            WHEN 1 THEN coalesce(found, 0)
            WHEN 2 THEN CASE WHEN a = {NEVER} OR (a IN (0, epoch) AND b <= last) THEN b ELSE 0 END
            WHEN 3 THEN CASE WHEN found IS NOT NULL THEN (found >> 1) - 1 + (found & 1)
                WHEN a = {NEVER} THEN 0 ELSE last END
            ELSE 0 END AS since,
        CASE kind WHEN 4 THEN a ELSE -1 END AS after_sequence
    FROM asked),
pages AS MATERIALIZED (
    SELECT *, CASE WHEN size <= most THEN {NEVER} ELSE coalesce((
            SELECT position FROM (
                SELECT e.position,
                    sum(e.bytes + {EVENT_BYTES}) OVER (ORDER BY e.position ROWS UNBOUNDED PRECEDING) AS size
                FROM event AS e WHERE e.channel = p.channel AND e.position > p.since AND e.sequence > p.after_sequence
                    AND e.expires > ?2)
            WHERE size >= p.most LIMIT 1), {NEVER}) END AS upto
    FROM from_there AS p)
SELECT CAST(json_group_array(json_array(p.place, json_array(p.epoch, p.last, p.found, p.since,
        max(p.lost, coalesce((SELECT max(e.position) FROM event AS e
            WHERE p.expired AND e.channel = p.channel AND e.expires <= ?2), 0)),
        max(p.lost_sequence, coalesce((SELECT max(e.sequence) FROM event AS e
            WHERE p.expired AND e.channel = p.channel AND e.expires <= ?2), 0)),
        (SELECT e.position FROM event AS e WHERE e.channel = p.channel AND e.position > p.since
            AND e.sequence > p.after_sequence AND e.expires > ?2 ORDER BY e.position DESC LIMIT 1),
        json((SELECT json_group_array(json_array(
                e.position, e.sequence / {{second}}, e.sequence % {{second}}, e.expires, e.id,
                json(CASE e.headers WHEN '' THEN '{{{{}}}}' ELSE e.headers END), e.body))
            FROM event AS e WHERE e.channel = p.channel AND e.position > p.since AND e.position <= p.upto
                AND e.sequence > p.after_sequence AND e.expires > ?2))))) AS BLOB)
    FROM pages AS p
""".format(second=SECOND)
READ_SIZES: Final = """
SELECT CAST(json_group_array(json_array(h.channel, json_array(h.last, h.number - CASE WHEN h.next_expiry > ?2 THEN 0
        ELSE (SELECT count(*) FROM event AS e WHERE e.channel = h.channel AND e.expires <= ?2) END,
        h.expires))) AS BLOB)
    FROM json_each(CAST(?1 AS TEXT)) AS q CROSS JOIN head AS h ON h.channel = q.value
    WHERE NOT h.until BETWEEN 1 AND ?2
"""
READ_APPENDED: Final = """
SELECT CAST(json_group_array(json_array(place, json_array(epoch, position, 2))) AS BLOB) FROM temp.appended
"""
# Before a sweep deletes them.
NOTE_SWEPT: Final = """
UPDATE head SET lost = max(lost, gone.offset), lost_sequence = max(lost_sequence, gone.sequence),
    number = number - gone.events, bytes = head.bytes - gone.bytes
FROM (SELECT channel, max(position) AS offset, max(sequence) AS sequence, count(*) AS events, sum(bytes) AS bytes
    FROM event WHERE {condition} GROUP BY channel) AS gone
WHERE head.channel = gone.channel
"""

HEAD_ENDED: Final = f"(CASE until WHEN 0 THEN expires <= :now - {HEAD_GRACE} ELSE until <= :now END)"
