
CREATE TABLE run (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    name        TEXT NOT NULL UNIQUE,
    actor       TEXT NOT NULL,
    queue       TEXT NOT NULL,
    key         TEXT,
    state       TEXT NOT NULL,              -- RunState
    epoch       INTEGER NOT NULL,           -- the newest, which alone may append; -1: none yet
    epochs      BLOB NOT NULL,              -- Head.epochs, JSON
    inbox_epoch INTEGER NOT NULL,
    first       INTEGER NOT NULL,           -- the first seq that is kept
    beat        INTEGER NOT NULL,           -- the owner's heartbeat
    started     REAL,                       -- Unix seconds
    ended       REAL,
    expires     REAL,                       -- of an ended run with a retention of its own
    error       BLOB,                       -- ErrorInfo, JSON
    meta        BLOB NOT NULL,              -- Meta but for its input, JSON
    input       BLOB NOT NULL               -- the last column: who reads the others never loads it
) STRICT;
CREATE INDEX run_state ON run(state, id);
CREATE INDEX run_actor ON run(actor, id);
CREATE INDEX run_ended ON run(ended, expires) WHERE ended IS NOT NULL;
CREATE INDEX run_expires ON run(expires) WHERE expires IS NOT NULL;

-- Rows lie in the order of their commits, whatever their log: appends of many runs share pages, and `id` tells what is
-- new. The index finds "after n": the first batch whose last chunk is beyond n.
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
    run   INTEGER NOT NULL,
    token TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    PRIMARY KEY (run, token)
) STRICT, WITHOUT ROWID;

CREATE TABLE sent (
    run    INTEGER NOT NULL,
    sender TEXT NOT NULL,
    id     TEXT NOT NULL,
    seq    INTEGER NOT NULL,
    PRIMARY KEY (run, sender, id)
) STRICT, WITHOUT ROWID;

CREATE TABLE mark (
    run    INTEGER NOT NULL,
    reader TEXT NOT NULL,
    seq    INTEGER NOT NULL,
    beat   INTEGER NOT NULL,
    PRIMARY KEY (run, reader)
) STRICT, WITHOUT ROWID;


CREATE TABLE queue (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    run      TEXT NOT NULL UNIQUE,
    queue    TEXT NOT NULL,
    actor    TEXT NOT NULL,
    key      TEXT,
    priority INTEGER NOT NULL DEFAULT 1,    -- its rank (the default: for processes that know only format 2)
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

-- The workers that attended lately.
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

-- Batches of `log` that end before `before` are forgotten already; they are deleted little by little.
CREATE TABLE debris (
    log    INTEGER PRIMARY KEY,
    before INTEGER NOT NULL
) STRICT;


CREATE TRIGGER run_gone AFTER DELETE ON run BEGIN
    DELETE FROM fence WHERE run = OLD.id;
    DELETE FROM sent WHERE run = OLD.id;
    DELETE FROM mark WHERE run = OLD.id;
    INSERT OR REPLACE INTO debris VALUES (2 * OLD.id, 9223372036854775807), (2 * OLD.id + 1, 9223372036854775807);
    INSERT INTO change(kind, topic) VALUES (0, OLD.name), (0, OLD.name || '/in');
END;

CREATE TRIGGER queue_put AFTER INSERT ON queue BEGIN
    UPDATE queue SET ready = 1 WHERE id = NEW.id AND NEW.due IS NULL AND NOT EXISTS (
        SELECT 1 FROM queue WHERE actor = NEW.actor AND key = NEW.key AND due IS NULL AND id < NEW.id);
    INSERT INTO change(kind, topic) VALUES (2, '');
END;

CREATE TRIGGER queue_gone AFTER DELETE ON queue WHEN OLD.key IS NOT NULL AND OLD.due IS NULL BEGIN
    UPDATE queue SET ready = 1
        WHERE id = (SELECT min(id) FROM queue WHERE actor = OLD.actor AND key = OLD.key AND due IS NULL);
    INSERT INTO change(kind, topic) VALUES (2, '');
END;
