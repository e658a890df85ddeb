"""What a store's file is made of: its tables and triggers, and the number of its format.

A run is two logs and a record: the record has the id of the run's outbox, and the log after that is its inbox. A log
beside which there is no such record belongs to no run. Ids are AUTOINCREMENT, so that none comes twice: what is left of
a log that was dropped never belongs to another, and a larger id is always a later row.
"""

from __future__ import annotations

__all__ = ["APPLICATION_ID", "LOOK", "MARKS", "QUEUE", "SCHEMA", "VERSION"]

APPLICATION_ID = 0x4C4F4F4D  # "LOOM"
VERSION = 5
"""The file's format, as its `user_version` tells it. No release wrote an older one: see docs/adr/0044."""

LOOK, MARKS, QUEUE = range(3)
"""What a row of `change` says: look at this log; its readers' marks changed; somebody may claim."""

_EVERYTHING = 2**63 - 1
"""Beyond every seq."""

SCHEMA = f"""
CREATE TABLE log (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    name     TEXT NOT NULL UNIQUE,
    spec     BLOB NOT NULL,                 -- LogSpec, JSON
    opaque   INTEGER NOT NULL,              -- its records are no lines: one a batch
    epoch    INTEGER NOT NULL DEFAULT -1,   -- the newest of its one writer, who alone may append; -1: there is none
    epochs   BLOB NOT NULL,                 -- LogInfo.epochs, JSON
    failures INTEGER NOT NULL DEFAULT 0,    -- of attempts, as fences told
    first    INTEGER NOT NULL DEFAULT 1,    -- the first seq that is kept
    trimmed  INTEGER NOT NULL DEFAULT 0,    -- payload bytes before it
    ended    INTEGER NOT NULL DEFAULT 0
) STRICT;

-- Rows lie in the order of their commits, whatever their log: appends of many logs share pages, and `id` tells what is
-- new. The index finds "after n": the first batch whose last record is beyond n.
CREATE TABLE batch (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    log     INTEGER NOT NULL,
    epoch   INTEGER NOT NULL,
    first   INTEGER NOT NULL,
    last    INTEGER NOT NULL,
    upto    INTEGER NOT NULL,               -- payload bytes of the log, this batch included: bounds a page
    payload BLOB NOT NULL
) STRICT;
CREATE UNIQUE INDEX batch_place ON batch(log, last);

CREATE TABLE fence (
    log   INTEGER NOT NULL,
    token TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    PRIMARY KEY (log, token)
) STRICT, WITHOUT ROWID;

-- The newest record of each that sends to a log of many writers.
CREATE TABLE producer (
    log   INTEGER NOT NULL,
    name  TEXT NOT NULL,
    epoch INTEGER NOT NULL,                 -- the producer's own, and its record's number there
    seq   INTEGER NOT NULL,
    place INTEGER NOT NULL,                 -- the record's seq in the log
    PRIMARY KEY (log, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE mark (
    log    INTEGER NOT NULL,
    reader TEXT NOT NULL,
    seq    INTEGER NOT NULL,
    beat   INTEGER NOT NULL,
    PRIMARY KEY (log, reader)
) STRICT, WITHOUT ROWID;

-- Batches of `log` that end before `before` are forgotten already; they are deleted little by little.
CREATE TABLE debris (
    log    INTEGER PRIMARY KEY,
    before INTEGER NOT NULL
) STRICT;

CREATE TABLE run (
    id      INTEGER PRIMARY KEY,            -- its outbox's
    state   TEXT NOT NULL,                  -- RunState
    actor   TEXT NOT NULL,
    parent  TEXT,
    root    TEXT,
    queue   TEXT NOT NULL,
    key     TEXT,
    started REAL,                           -- Unix seconds
    ended   REAL,
    expires REAL,                           -- of an ended run with a retention of its own
    error   BLOB,                           -- ErrorInfo, JSON
    meta    BLOB NOT NULL,                  -- Meta but for its input, JSON
    input   BLOB NOT NULL                   -- the last column: who reads the others never loads it
) STRICT;
CREATE INDEX run_state ON run(state, id);
CREATE INDEX run_actor ON run(actor, id);
CREATE INDEX run_parent ON run(parent, id) WHERE parent IS NOT NULL;
CREATE INDEX run_root ON run(root, id) WHERE root IS NOT NULL;
CREATE INDEX run_ended ON run(ended, expires) WHERE ended IS NOT NULL;
CREATE INDEX run_expires ON run(expires) WHERE expires IS NOT NULL;

CREATE TABLE label (
    name  TEXT NOT NULL,
    value TEXT NOT NULL,
    run   INTEGER NOT NULL,
    PRIMARY KEY (name, value, run)
) STRICT, WITHOUT ROWID;
CREATE INDEX label_run ON label(run);

-- The heartbeat of a run's owner. Not in `run`: each change of a row there writes its input anew.
CREATE TABLE owner (
    run   INTEGER PRIMARY KEY,
    beat  INTEGER NOT NULL,
    heard REAL NOT NULL                     -- Unix seconds
) STRICT;

CREATE TABLE queue (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    run      TEXT NOT NULL UNIQUE,
    queue    TEXT NOT NULL,
    actor    TEXT NOT NULL,
    key      TEXT,
    priority INTEGER NOT NULL,              -- its rank
    due      REAL,                          -- Unix seconds: not put before, in no line; NULL once it is put
    ready    INTEGER NOT NULL,              -- no earlier entry of its actor's key
    worker   TEXT,                          -- who claimed it
    number   INTEGER NOT NULL,              -- of the newest claim
    beat     INTEGER NOT NULL,              -- its heartbeat
    hold     REAL NOT NULL,                 -- lease or delay: claimable when (number, beat) stood still for so long
    crashes  INTEGER NOT NULL,
    meta     BLOB NOT NULL,                 -- as in run
    input    BLOB NOT NULL
) STRICT;
CREATE INDEX queue_key ON queue(actor, key, id) WHERE key IS NOT NULL AND due IS NULL;
CREATE INDEX queue_free ON queue(queue, priority, id) WHERE ready AND worker IS NULL AND hold = 0;
CREATE INDEX queue_actor ON queue(queue, priority, actor, id) WHERE ready AND worker IS NULL AND hold = 0;
CREATE INDEX queue_held ON queue(id) WHERE worker IS NOT NULL OR hold > 0;
CREATE INDEX queue_due ON queue(due) WHERE due IS NOT NULL;

-- How many claims were handed out: which priority is next.
CREATE TABLE given (
    claims INTEGER NOT NULL
) STRICT;
INSERT INTO given VALUES (0);

-- The workers that registered lately.
CREATE TABLE worker (
    name    TEXT PRIMARY KEY,
    started REAL NOT NULL,
    seen    REAL NOT NULL,                  -- Unix seconds
    asked   INTEGER NOT NULL,               -- to drain
    info    BLOB NOT NULL                   -- WorkerInfo, JSON
) STRICT, WITHOUT ROWID;

-- What changed besides batches, for who watches in this process and in others. Only the newest rows are kept.
CREATE TABLE change (
    id    INTEGER PRIMARY KEY AUTOINCREMENT,
    kind  INTEGER NOT NULL,
    topic TEXT NOT NULL
) STRICT;

CREATE TRIGGER log_made AFTER INSERT ON log BEGIN
    INSERT INTO change(kind, topic) VALUES ({LOOK}, NEW.name);
END;

CREATE TRIGGER log_gone AFTER DELETE ON log BEGIN
    DELETE FROM fence WHERE log = OLD.id;
    DELETE FROM producer WHERE log = OLD.id;
    DELETE FROM mark WHERE log = OLD.id;
    INSERT OR REPLACE INTO debris VALUES (OLD.id, {_EVERYTHING});
    INSERT INTO change(kind, topic) VALUES ({LOOK}, OLD.name);
END;

CREATE TRIGGER run_gone AFTER DELETE ON run BEGIN
    DELETE FROM log WHERE id IN (OLD.id, OLD.id + 1);
    DELETE FROM label WHERE run = OLD.id;
    DELETE FROM owner WHERE run = OLD.id;
END;

CREATE TRIGGER queue_put AFTER INSERT ON queue BEGIN
    UPDATE queue SET ready = 1 WHERE id = NEW.id AND NEW.due IS NULL AND NOT EXISTS (
        SELECT 1 FROM queue WHERE actor = NEW.actor AND key = NEW.key AND due IS NULL AND id < NEW.id);
    INSERT INTO change(kind, topic) VALUES ({QUEUE}, '');
END;

CREATE TRIGGER queue_gone AFTER DELETE ON queue WHEN OLD.key IS NOT NULL AND OLD.due IS NULL BEGIN
    UPDATE queue SET ready = 1
        WHERE id = (SELECT min(id) FROM queue WHERE actor = OLD.actor AND key = OLD.key AND due IS NULL);
    INSERT INTO change(kind, topic) VALUES ({QUEUE}, '');
END;
"""
