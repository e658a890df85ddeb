"""Every statement of the SQLite store. Arguments are numbered; all values are integers, texts, floats and bytes."""

from __future__ import annotations

from functools import lru_cache

from loom.model import limits
from loom.model.run import inbox_of

__all__ = ["appends", "heads"]

IDENTITY = """
SELECT application_id, user_version, schema_version
FROM pragma_application_id, pragma_user_version, pragma_schema_version
"""

BEGIN = "BEGIN IMMEDIATE"
COMMIT = "COMMIT"
ROLLBACK = "ROLLBACK"

# --- runs ------------------------------------------------------------------------------------------------------------

CREATE = """
INSERT INTO run(name, actor, queue, key, state, epoch, epochs, inbox_epoch, first, beat, meta, input)
VALUES (?1, ?2, ?3, ?4, 'queued', -1, x'5b5d', ?5, 1, 0, ?6, ?7) ON CONFLICT(name) DO NOTHING
"""

_HEAD = """
SELECT name, meta, epochs, first, (SELECT max(last) FROM batch WHERE log = 2 * run.id), state, error, started, ended,
    beat, (SELECT heard FROM owner WHERE owner.run = run.id)
"""

HEAD = f"""
{_HEAD}, input, iif(ended IS NULL, NULL, (SELECT payload FROM batch WHERE log = 2 * run.id ORDER BY last DESC LIMIT 1))
FROM run WHERE name = ?1
"""
LIGHT_HEAD = f"{_HEAD}, NULL, NULL FROM run WHERE name = ?1"

RUN_ID = "SELECT id FROM run WHERE name = ?1"


def heads(*, before: bool, state: bool, actor: bool) -> str:
    """Heads without input and result, newest first; with those of (before which id, state, actor) that are named, and
    ?4 for how many."""
    given = [" AND id < ?1" * before, " AND state = ?2" * state, " AND actor = ?3" * actor]
    return f"{_HEAD}, NULL, NULL FROM run WHERE 1{''.join(given)} ORDER BY id DESC LIMIT ?4"


STATE = """
SELECT run.id, run.epoch, run.epochs, run.ended IS NOT NULL, last.epoch, last.first, last.last, last.payload
FROM run LEFT JOIN batch AS last ON last.id = (SELECT id FROM batch WHERE log = 2 * run.id ORDER BY last DESC LIMIT 1)
WHERE name = ?1
"""

EPOCH_OF_TOKEN = "SELECT epoch FROM fence WHERE run = ?1 AND token = ?2"
ADD_TOKEN = "INSERT INTO fence VALUES (?1, ?2, ?3)"
FAILURES = "SELECT count FROM failure WHERE run = ?1"
COUNT_FAILURES = "INSERT OR REPLACE INTO failure VALUES (?1, ?2)"
BEGIN_EPOCH = "UPDATE run SET epoch = ?2, epochs = ?3 WHERE id = ?1"
BEGIN_ATTEMPT = "UPDATE run SET state = 'running', started = coalesce(started, ?2) WHERE id = ?1"
END = """
UPDATE run SET state = ?2, error = ?3, ended = ?4,
    expires = ?4 + max(iif(json_valid(CAST(meta AS TEXT)), CAST(meta AS TEXT) ->> '$.retention', NULL), ?5)
WHERE id = ?1
"""
TOUCH = "UPDATE run SET beat = beat + (ended IS NULL) WHERE name = ?1"
HEAR = "INSERT OR REPLACE INTO owner SELECT id, ?2 FROM run WHERE name = ?1 AND ended IS NULL"
DROP = "DELETE FROM run WHERE name = ?1"

# --- logs ------------------------------------------------------------------------------------------------------------


@lru_cache(limits.GROUP_ROWS)
def appends(count: int) -> str:
    """Appends to `count` different runs in one step: (run, epoch, first, last, payload) each.

    Adds those that continue their open log; `changes()` tells how many.
    """
    values = ", ".join(["(?, ?, ?, ?, ?)"] * count)
    return f"""
INSERT INTO batch(log, epoch, first, last, upto, payload)
SELECT 2 * run.id, new.column2, new.column3, new.column4, ifnull(tail.upto, 0) + length(new.column5), new.column5
FROM (VALUES {values}) AS new CROSS JOIN run
    LEFT JOIN batch AS tail ON tail.log = 2 * run.id AND tail.last = new.column3 - 1
WHERE run.name = new.column1 AND run.epoch = new.column2 AND run.ended IS NULL
    AND ifnull(tail.last, 0) = new.column3 - 1
    AND NOT EXISTS (SELECT 1 FROM batch WHERE log = 2 * run.id AND last >= new.column3)
"""


ADD_BATCH = """
INSERT INTO batch(log, epoch, first, last, upto, payload)
VALUES (?1, ?2, ?3, ?4, ifnull((SELECT upto FROM batch WHERE log = ?1 AND last = ?3 - 1), 0) + length(?5), ?5)
"""

# Chunk by chunk or at once, what was stored together need not be read together: whole batches of one epoch, up to a
# page, come as one value, because each row that is stepped to costs a change of threads. Behind it stands the last seq.
READ = """
SELECT run.epochs, run.inbox_epoch, run.first, run.ended IS NOT NULL,
    (SELECT max(last) FROM batch WHERE log = 2 * run.id + ?2), edge.epoch, edge.first,
    (SELECT CAST(group_concat(payload, '') || max(last) AS BLOB) FROM (
        SELECT payload, last FROM batch
        WHERE log = edge.log AND last >= edge.last AND epoch = edge.epoch
            AND last <= ifnull((SELECT last FROM batch WHERE log = edge.log AND last >= ?3 + ?4 ORDER BY last LIMIT 1),
                edge.last + ?4)
            AND (last = edge.last OR upto <= edge.upto - length(edge.payload) + ?5)
        ORDER BY last))
FROM run LEFT JOIN batch AS edge
    ON edge.id = (SELECT id FROM batch WHERE log = 2 * run.id + ?2 AND last > ?3 ORDER BY last LIMIT 1)
WHERE run.name = ?1
"""

INBOX = """
SELECT run.id, run.inbox_epoch, run.ended IS NOT NULL, ifnull(last.last, 0), ifnull(last.upto, 0)
FROM run LEFT JOIN batch AS last
    ON last.id = (SELECT id FROM batch WHERE log = 2 * run.id + 1 ORDER BY last DESC LIMIT 1)
WHERE name = ?1
"""
SEQ_OF_MESSAGE = "SELECT seq FROM sent WHERE run = ?1 AND sender = ?2 AND id = ?3"
ADD_MESSAGE = "INSERT INTO sent VALUES (?1, ?2, ?3, ?4)"

# Payload bytes that an outbox keeps.
SIZE = """
SELECT last.upto - first.upto + length(first.payload) FROM run
    JOIN batch AS first ON first.id = (SELECT id FROM batch WHERE log = 2 * run.id AND last >= run.first ORDER BY last)
    JOIN batch AS last ON last.id = (SELECT id FROM batch WHERE log = 2 * run.id ORDER BY last DESC)
WHERE run.id = ?1
"""

FIRST_KEPT = """
SELECT run.id, run.first, ifnull(
    (SELECT first FROM batch WHERE log = 2 * run.id AND last >= ?2 ORDER BY last LIMIT 1),
    (SELECT first FROM batch WHERE log = 2 * run.id ORDER BY last DESC LIMIT 1))
FROM run WHERE name = ?1
"""
TRIM = "UPDATE run SET first = ?2 WHERE id = ?1"
ADD_DEBRIS = "INSERT OR REPLACE INTO debris VALUES (?1, ?2)"

# --- readers' marks --------------------------------------------------------------------------------------------------

MARK = "INSERT OR REPLACE INTO mark VALUES (?1, ?2, ?3, ?4)"
COUNT_MARKS = "SELECT count(*) FROM mark WHERE run = ?1"
BEAT_OF = "SELECT beat FROM mark WHERE run = ?1 AND reader = ?2"
UNMARK = "DELETE FROM mark WHERE run = ?1 AND reader = ?2"
MARKS_OF = "SELECT reader, seq, mark.beat FROM run LEFT JOIN mark ON mark.run = run.id WHERE name = ?1"

# --- the queue -------------------------------------------------------------------------------------------------------

PUT = """
INSERT INTO queue(run, queue, actor, key, priority, due, ready, number, beat, hold, crashes, meta, input)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, 0, 0, 0, 0, 0, ?7, ?8) ON CONFLICT(run) DO NOTHING
"""

FIRST_DUE = "SELECT min(due) FROM queue WHERE due IS NOT NULL"

# The new row takes the old one's place: its id says that it was put just now. REPLACE fires no delete trigger.
PUT_DUE = """
INSERT OR REPLACE INTO queue(run, queue, actor, key, priority, ready, number, beat, hold, crashes, meta, input)
SELECT run, queue, actor, key, priority, 0, number, 0, 0, 0, meta, input FROM queue
WHERE due <= ?1 ORDER BY due, id LIMIT ?2
"""

_IS_FREE = "ready AND worker IS NULL AND hold = 0"

FREE = f"""
SELECT min((SELECT id FROM queue WHERE queue = name.value AND priority = ?2 AND {_IS_FREE} ORDER BY id LIMIT 1))
FROM json_each(?1) AS name
"""

# Without the actors in ?3 and the entries in ?4: from actor to actor, so that nobody's backlog is walked through.
FREE_BUT = f"""
WITH RECURSIVE line(name, actor) AS (
    SELECT value, (SELECT min(actor) FROM queue WHERE queue = value AND priority = ?2 AND {_IS_FREE})
    FROM json_each(?1)
    UNION ALL
    SELECT name, (
        SELECT min(actor) FROM queue WHERE queue = name AND priority = ?2 AND {_IS_FREE} AND actor > line.actor)
    FROM line WHERE line.actor IS NOT NULL)
SELECT min((
    SELECT id FROM queue INDEXED BY queue_actor
    WHERE queue = name AND priority = ?2 AND actor = line.actor AND {_IS_FREE}
        AND id NOT IN (SELECT value FROM json_each(?4)) ORDER BY id LIMIT 1))
FROM line WHERE actor IS NOT NULL AND actor NOT IN (SELECT value FROM json_each(?3))
"""

# As one JSON array: a step, and so a change of threads, for all of them.
HELD = """
SELECT json_group_array(json_array(
    run, number, beat, hold, json(iif(worker IS NULL, 'true', 'false')), id, queue, actor, priority)) FROM (
    SELECT * FROM queue WHERE worker IS NOT NULL OR hold > 0 ORDER BY id LIMIT ?1)
"""

# Numbers grow also over entries of the same run: a later entry has a larger id.
CLAIM = """
UPDATE queue SET crashes = crashes + (worker IS NOT NULL), worker = ?2, hold = ?3, beat = 0,
    number = max(number, id << 20) + 1
WHERE id = ?1 RETURNING run, number, crashes, meta, input
"""

GIVEN = "SELECT claims FROM given"
GIVE = "UPDATE given SET claims = claims + 1"

QUEUE_OF = "SELECT queue FROM queue WHERE run = ?1"
SEIZE = """
UPDATE queue SET worker = ?2, hold = ?3, beat = 0, number = max(number, id << 20) + 1
WHERE run = ?1 RETURNING number, crashes
"""

PUT_BACK = "UPDATE queue SET worker = NULL, hold = 0 WHERE id = ?1"

HOLDER = "SELECT worker, number FROM queue WHERE run = ?1"
RENEW = "UPDATE queue SET beat = beat + 1 WHERE run = ?1 AND worker = ?2 AND number = ?3"
RELEASE = "UPDATE queue SET beat = beat + 1, worker = NULL, hold = ?2 WHERE run = ?1"
LEAVE_QUEUE = "DELETE FROM queue WHERE run = ?1"
LEAVE_EARLY = "DELETE FROM queue WHERE run = ?1 AND due IS NOT NULL"

_ENTRIES = """
SELECT run, actor, queue, key, priority,
    CASE WHEN due IS NOT NULL THEN 'delayed' WHEN worker IS NOT NULL THEN 'leased' WHEN hold > 0 THEN 'delayed'
        WHEN ready THEN 'ready' ELSE 'behind' END AS place,
    worker, number, crashes, meta
FROM queue WHERE due IS {} AND (?1 IS NULL OR queue = ?1) AND (?2 IS NULL OR place = ?2) ORDER BY {} LIMIT ?3
"""
ENTRIES = _ENTRIES.format("NULL", "id")
ENTRIES_DUE = _ENTRIES.format("NOT NULL", "due, id")

# --- workers ---------------------------------------------------------------------------------------------------------

ATTEND = """
INSERT INTO worker VALUES (?1, ?2, ?3, 0, ?4) ON CONFLICT DO UPDATE
SET asked = asked AND started = excluded.started, started = excluded.started, seen = excluded.seen, info = excluded.info
RETURNING asked
"""
DISMISS = "DELETE FROM worker WHERE name = ?1"
FORGET_WORKERS = "DELETE FROM worker WHERE seen < ?1"
WORKERS = "SELECT info, seen, asked FROM worker WHERE seen >= ?1 ORDER BY name"
ASK_TO_DRAIN = "UPDATE worker SET asked = 1 WHERE name = ?1 AND seen >= ?2"

# --- changes ---------------------------------------------------------------------------------------------------------

ADD_CHANGE = "INSERT INTO change(kind, topic) VALUES (?1, ?2)"
NEWEST = """
SELECT ifnull((SELECT seq FROM sqlite_sequence WHERE name = 'batch'), 0),
    ifnull((SELECT seq FROM sqlite_sequence WHERE name = 'change'), 0)
"""
CHANGES = """
SELECT json_group_array(json_array(kind, topic)) FROM (
    SELECT DISTINCT kind, topic FROM change WHERE id BETWEEN ?1 AND ?2)
"""
APPENDED = f"""
SELECT json_group_array(name) FROM (
    SELECT DISTINCT run.name || iif(batch.log & 1, '{inbox_of("")}', '') AS name
    FROM batch JOIN run ON run.id = batch.log >> 1 WHERE batch.id BETWEEN ?1 AND ?2)
"""
DATA_VERSION = "PRAGMA data_version"

# --- upkeep ----------------------------------------------------------------------------------------------------------

_ORPHANS = """
FROM run WHERE state IN ('running', {}) AND NOT EXISTS (SELECT 1 FROM queue WHERE queue.run = run.name)
ORDER BY id LIMIT ?1
"""
STARTED_ORPHANS = "SELECT name" + _ORPHANS.format("'running'")

# What cannot be read is put all the same, and told of by who claims it.
REQUEUE = f"""
INSERT INTO queue(run, queue, actor, key, priority, due, ready, number, beat, hold, crashes, meta, input)
SELECT name, queue, actor, key,
    CASE told ->> '$.priority' WHEN 'high' THEN 0 WHEN 'low' THEN 2 ELSE 1 END,
    iif(told ->> '$.not_before' > ?2, told ->> '$.not_before', NULL),
    0, 0, 0, 0, 0, meta, input
FROM (
    SELECT *, iif(json_valid(CAST(meta AS TEXT)), CAST(meta AS TEXT), '{{}}') AS told {_ORPHANS.format("'queued'")})
"""

_SPENT = "SELECT id FROM run WHERE ended IS NOT NULL AND NOT EXISTS (SELECT 1 FROM queue WHERE queue.run = run.name)"

DROP_AGED = f"DELETE FROM run WHERE id IN ({_SPENT} AND ended < ?1 AND expires IS NULL ORDER BY ended LIMIT ?2)"
DROP_EXPIRED = f"DELETE FROM run WHERE id IN ({_SPENT} AND expires <= ?1 ORDER BY expires LIMIT ?2)"
DROP_OLDEST = f"DELETE FROM run WHERE id IN ({_SPENT} ORDER BY ended LIMIT ?1)"
ENDED_RUNS = "SELECT count(*) FROM run WHERE ended IS NOT NULL"

DEBRIS = "SELECT log, before FROM debris LIMIT 1"
CLEAR = """
DELETE FROM batch WHERE id IN (SELECT id FROM batch WHERE log = ?1 AND last < ?2 ORDER BY last LIMIT ?3)
"""
CLEARED = "DELETE FROM debris WHERE log = ?1"
FORGET_CHANGES = "DELETE FROM change WHERE id <= (SELECT seq FROM sqlite_sequence WHERE name = 'change') - ?1"
PAGES = """
SELECT page_count, freelist_count, page_size
FROM pragma_page_count, pragma_freelist_count, pragma_page_size
"""
VACUUM = "PRAGMA incremental_vacuum"
