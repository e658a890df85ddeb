"""Bounds that a user can meet or that several modules share, with their reasons. Nothing in Loom is unbounded.

A bound that one module uses stands there, as a constant with its reason.

Sizes are bytes, times are seconds, unless the name says otherwise.
"""

from __future__ import annotations

# --- what a run says -------------------------------------------------------------------------------------------------

EVENT_FIELDS = 4 << 10
"""What an event holds besides its chunk's JSON: an id (a run's name, a cursor), a type, or the fields of a completion's
delta, of which the model's name as JSON is the longest (6 * `MODEL_NAME`)."""

CHUNK_BYTES = (1 << 20) - EVENT_FIELDS
"""One chunk's JSON, so that its event fits what clients take: 1 MiB (httpx2's `EventSource`). Larger things belong in
files or object stores, with a chunk that names them."""

LOG_BYTES = 256 << 20
"""What one run may have said and kept: an actor that floods ends here, and not with a full disk. A million tokens are
a fifth of it. Whoever means to say more says how much is kept (`Keep(bytes=...)`)."""

TRIM_PARTS = 8
"""A log with `keep` is trimmed by about an eighth of its bounds at a time: seldom, and never much beyond them."""

YIELD_EVERY = 256
"""A producer that never suspends gives way to the loop after this many chunks, so that others run."""

PAGE_CHUNKS = 1024
"""One read, when the caller names no limit: a reader's memory is one page, however far it lags."""

PAGE_BYTES = 512 << 10
"""The same in bytes; a page holds at least one chunk, so a single larger one still passes."""

ERROR_CHARACTERS = 4096
"""What is told of an exception's message: it stands in the run's head, and so in lists of runs."""

ERROR_BYTES = 16 << 10
"""An error's details, as JSON; larger ones are left out, for the same reason."""

READ_LIMIT = 10_000
"""The most chunks a caller may ask for in one read."""

# --- names -----------------------------------------------------------------------------------------------------------

ID_LENGTH = 128
"""A run's id, an actor's name, a key: they stand in URLs, keys and log lines."""

LABELS = 16
"""Labels of one run: each is an index entry in every store, written with the run and removed with it."""

LABEL_LENGTH = 128
"""Characters of a label's value, as of an id: labels name what a run belongs to, and hold no content."""

IDEMPOTENCY_KEY_LENGTH = 255
"""As the IETF draft's users commonly allow."""

# --- inbox -----------------------------------------------------------------------------------------------------------

INBOX_MESSAGES = 10_000
"""Messages one run may be sent: each attempt reads them from the start."""

INBOX_BYTES = 16 << 20
"""The same in bytes, line ends included: a running attempt holds them all in memory, and a worker drives a hundred."""

MESSAGE_BYTES = 256 << 10
"""One message's JSON."""

INPUT_BYTES = 1 << 20
"""A run's input, which rides in its metadata."""

# --- JSON ------------------------------------------------------------------------------------------------------------

JSON_DEPTH = 256
"""Nesting of inputs, messages and chunks: refused before anything recurses over it (Python gives up near 1000)."""

TYPES = 1024
"""Types whose readers and options are remembered: as many as an app's hints name, not as many as a test suite makes."""

# --- leases and time-outs --------------------------------------------------------------------------------------------

LEASE = 10.0
"""A worker's claim lapses after this; takeover follows within LEASE + 1."""

LEAST_LEASE = 0.1
"""A shorter one lapses by itself whenever its holder's loop or the store is busy, and is renewed all the time."""

RENEW_FRACTION = 3
"""Leases are renewed every LEASE / 3: two renewals may be lost."""

OWNER_LEASE = 10.0
"""An owned run is cancelled when its owner has not been heard of for this long."""

OWNER_LEAVE = 5.0
"""How long an owner that leaves tries to cancel its run; then the lapsing lease does it."""

READER_LEASE = 10.0
"""A reader of an `ahead` run that has not been heard of for this long no longer holds the producer."""

READERS = 1000
"""Readers that one `ahead` run may wait for: each has a mark, which the run looks at whenever one moves. Counts those
that were heard of within `READER_LEASE`, whether they read in this process, through a server or by a store."""

LEAVE = 1.0
"""How long a reader that leaves tries to say so; then its mark lapses by itself."""

ABANDON_AFTER = 10.0
"""What does not stop within this time after a cancel is told as abandoned; its slot stays counted."""

WIND_UP = 1.0
"""At the end of a process or thread of ours, what is left of its loop gets this long, and then it is left behind."""

DRAIN = 20.0
"""On SIGTERM running producers may finish for this long."""

HEARTBEAT = 15.0
"""A comment on an idle event stream: proxies commonly cut at 30 to 60 s of silence."""

LONG_POLL = 30.0
"""The longest `wait` of one read over HTTP."""

STALLED_VIEWER = 60.0
"""A connection that takes no byte for this long is closed; its viewer resumes from its cursor."""

LEAVE_GRACE = 10.0
"""A viewer of an owned endpoint may be away this long (a reconnect) before its run is cancelled."""

SWEEP_EVERY = 10.0
"""How often a worker looks for lapsed leases' leftovers and expired runs."""

LONGEST = 100 * 365 * 86400.0
"""Seconds that any time-out, retention, lease or pause may have: more is a mistake of units, and some timers and stores
cannot count so far."""

WHOLE = 2**53 - 1
"""The largest count that an option may have: the largest whole number that every reader of JSON takes for itself (RFC
8259, section 6)."""

DELAY = 10 * 365 * 86400.0
"""A start can be delayed so far: farther is a mistake of units."""

WORKER_SEEN = 60.0
"""A worker that has not attended for so long is no longer listed: many times ATTEND_EVERY, so that none flickers."""

UNSERVED_AFTER = 3.0
"""A run that waits for so long is looked at: does any worker serve its queue? Workers that start register at once."""

STRANGER_WAIT = 60.0
"""For so long a worker leaves the runs of an actor that no worker knows: while a release is rolled out, gateways that
have the new actor may be there before the first worker that has it."""

# --- a worker --------------------------------------------------------------------------------------------------------

CONCURRENCY = 100
"""Runs that one worker drives at a time, by default."""

WAITING = 1_000
"""Runs that wait (for a message, time or another run) beside those that one worker drives. With as many it claims none
of the actors whose runs wait: what they wait for still runs, other workers share the rest, and memory stays bounded."""

PUBLISHER_LEASE = 30.0
"""The log of a publisher that has not been heard of for this long is ended: a process that its supervisor starts anew
is back within it, and goes on."""

CRASHES = 5
"""Lost workers that a run survives (`max_crashes`) before it ends as `run_lost`."""

RETRY_BACKOFF = (0.1, 30.0)
"""First and longest pause before a retry, doubling and jittered."""

STORE_RETRY = (0.02, 1.0)
"""First and longest pause before a frozen batch is sent again to a store that is out of reach."""

REFUSED_RETRY = 10.0
"""The longest pause after a store refused what will hardly be allowed in a second: a rotated password, a missing right.
Rare enough to be no load and no noise, soon enough for whoever mends it and watches."""

# --- HTTP ------------------------------------------------------------------------------------------------------------

BODY_BYTES = 2 << 20
"""A request body: an input and its envelope."""

DISCARD_BYTES = 16 << 20
"""What is read of a body that is too large, so that its sender gets to read the answer."""

BODY_TIME = 30.0
"""A request's body must have come within this time, or, if it is answered before, within this time of its answer:
sending it slowly holds neither a handler nor a connection."""

HEAD_BYTES = 64 << 10
"""A request's line and headers: beyond what browsers and proxies send."""

LINGER = 2.0
"""After a refusal the connection is read on for this long, so that the other side gets to read why."""

KEEP_ALIVE = 65
"""Whole seconds an idle connection is kept: a little longer than the proxies before it commonly keep theirs (60)."""

CONNECTIONS = 10_000
"""Concurrent connections of one server. At this bound a new one evicts one without an admitted request."""

LIST_LIMIT = 1000
"""Runs in one page of a list."""

# --- OpenAI's clients -------------------------------------------------------------------------------------------------

FIRST_OUTPUT = 10.0
"""How long a chat's status waits for its first output: by then a model that refuses has mostly said so, and no
proxy has given up."""

MODEL_NAME = 512
"""The name of a model, which may be another server's: paths with an account in them, commit ids."""

COMPLETION_BYTES = 16 << 20
"""An answer that is not streamed: far beyond any model's longest."""

COMPLETION_PARTS = 10_000
"""Tool calls, their results and usage counts that one answer holds back until its end."""

# --- client ----------------------------------------------------------------------------------------------------------

RECONNECT = (0.1, 10.0)
"""First and longest pause before the HTTP client reconnects, doubling and jittered: it never spins."""

CONNECT_TIMEOUT = 5.0
"""To reach a server."""

ANSWER_BYTES = 16 << 20
"""An answer that is no event stream: a run with its input and result, a page, or a list of the longest kind."""

CLOSING = 0.1
"""After a stream's last event, a server's or a provider's: how long the body's end may take, before the connection is
given up instead of kept."""

# --- command line ----------------------------------------------------------------------------------------------------

REDRAW = 0.1
"""How often the live line is drawn anew: the spinner looks alive, and a fast stream is not slowed by it."""

# --- language models -------------------------------------------------------------------------------------------------

AI_EVENT_BYTES = 4 << 20
"""One event of a provider's stream: a whole tool call or image in base64 may come in one."""

AI_BODY_BYTES = 16 << 20
"""A provider's answer that is not a stream: one JSON document."""

AI_ANSWER_CHARACTERS = 16 << 20
"""What `complete` gathers: far beyond any model's longest answer."""

AI_TOOL_CALLS = 128
"""Tool calls in one answer: as many as OpenAI takes tools."""

AI_ARGUMENT_CHARACTERS = 1 << 20
"""The arguments of one answer's tool calls together, which are gathered until they are complete."""

AI_ROUNDS = 16
"""Answers of a model in one `run_tools`, unless the call says otherwise: a loop that does not end costs money."""

AI_TOOL_RESULT_CHARACTERS = 1 << 20
"""What one tool may tell the model: more than any context window holds."""

AI_SILENCE = 300.0
"""A provider that sends no byte for this long is given up: a reasoning model may think for minutes before its first."""

# --- stores ----------------------------------------------------------------------------------------------------------

LEAST_RETENTION = 60.0
"""An ended run is kept at least this long, also with a retention of 0: those that wait for its result have to read it.
A reader whose connection died unseen learns of it within `SILENCE`, and is back within `RECONNECT`'s longest pause."""

RETENTION = 7 * 86400.0
"""Ended runs are kept for this long."""

IDLE_OPEN = 7 * 86400.0
"""An open run that no queue holds, and in which nothing has happened for this long, is told as lost: after a week
nobody expects it to be run anew."""

SWEEP_RUNS = 1000
"""Runs that one sweep puts back, and drops, at most: nobody else waits long for it."""

EVENT_BYTES = 4 << 20
"""One event that is read from an event stream: a chunk and its field names, with room for other people's servers."""

# --- SQLite ----------------------------------------------------------------------------------------------------------

POLL = 0.005
"""How often SQLite's data_version is looked at while somebody waits (6 us a look): the latency between processes."""

PLACE = 0.1
"""How often SQLite's file and its log are looked for in their place (2 us each, and a change of threads): what is
written after one was deleted or replaced is lost for so long, and then refused."""

BUSY = 5.0
"""How long a call waits for another process's write lock before it is `Unavailable`."""

PUT_DUE = 1000
"""Delayed starts that one claim puts when their time has come: some milliseconds; the next claim goes on."""

OBSERVE = 0.5
"""How often a waiting claim looks at the heartbeats of others' claims: takeover is within the lease + 1 s."""

# --- Redis ------------------------------------------------------------------------------------------------------------

REDIS_RETENTION = 3600.0
"""Ended runs are kept for this long in Redis, whose memory is dear, unless the run or the app says otherwise."""

REDIS_SILENCE = 5.0
"""A server that owes a reply and sends no byte for this long is taken for gone, and connected to anew."""

REPLICA_WAIT = 1.0
"""How long an append waits for the replicas that have to confirm it; then its outcome is unknown: it is sent again."""

BARRIERS = 2
"""Such waits of one connection at a time. What comes meanwhile shares the next: when replicas are gone, whoever writes
is told within three of these times, however many do."""

REDIRECTIONS = 16
"""Answers of a cluster that point elsewhere, before a call gives up: a slot moves once, tables are learnt at once."""

REDIS_ECHO = 0.5
"""How often a process says something to itself by way of the server: unheard twice, its notices do not come either. A
cancel, which comes by a notice, is to be heard within about a second."""

REDIS_LOOK = 10.0
"""Each followed log that nothing was heard of is looked at so often all the same."""

REDIS_LOOK_TURNS = 20
"""In so many turns, so that the looks are spread."""

REDIS_LOOK_SLICE = 500
"""Looks, and subscriptions after a reconnect, in one write: a few milliseconds of the server's time."""

LOOKS = 512
"""Looks at the queue's counter that an observer remembers: thinned out by age, half of them reach back for weeks."""

REDIS_STAYED = 5.0
"""A connection for notices that lasted so long is made anew at once when it is lost; else after a growing pause."""

SERVED = 60.0
"""A queue that nobody in this process has claimed from for so long is looked at no more."""
