#!lua name=loom_VERSION

--[[ What has to happen at once, inside the server: everything that decides about a run, and everything of the queue.

Keys of a run, in this order (p: the prefix; the run in braces, so that a cluster keeps them together):
  1 p:{RUN}         hash    its head: meta input keep epochs epoch first tail ended state error started ended_at beat
                            written (bytes of the outbox) forgotten (of them, those that were trimmed)
                            inbox_epoch inbox_tail inbox_bytes marked repeats (of what was written already)
  2 p:{RUN}:out     stream  its outbox: an entry a batch, <epoch>-<last seq>, f the first seq, b the bytes written before
                            it, p the lines; what ends before the head's first is forgotten, and cleared bit by bit
  3 p:{RUN}:in      stream  its inbox: an entry a message, <epoch>-<seq>, p the line
  4 p:{RUN}:sent    hash    sender NUL id of each message, to its seq
  5 p:{RUN}:marks   hash    reader, to "<seq> <beat>"
  6 p:{RUN}:tokens  hash    a fence's token, to the epoch that it drew

Keys of the queue, all in one slot, in this order:
   1 {p}:queue         hash  counters: number (of entries and claims), claims (given out), renewals (of all leases),
                             repeats (of what was put)
   2 {p}:queue:entries hash  run, to what `pack` makes of its entry
   3 {p}:queue:metas   hash  run, to how it was started, without its input
   4 {p}:queue:inputs  hash  run, to its input
   5 {p}:queue:ready   zset  "<queue> <rank> <number> <run>", by name
   6 {p}:queue:actors  zset  the same entries as "<queue> <rank> <actor> <number> <run>", by name
   7 {p}:queue:lines   zset  "<actor> <key> <number> <run>", by name: of each line only the first may be ready or held
   8 {p}:queue:standing zset "<lease> <run>" of what lapses unless it is renewed, and of what was released with a delay,
                             by the number of its kind * 2^40 + the renewal that it saw last
   9 {p}:queue:kinds   zset  "<queue> <actor> <leased or paused> <about its lease>" of what stands there, by number
  10 {p}:queue:later   zset  run that is not to start yet, by the time from which it may
  11 {p}:queue:all     zset  run, by its entry's number
  12 {p}:queue:told    hash  worker, to the claim that it was given last, and the call that asked for it
  13 {p}:workers       zset  worker, by the server's time when it last attended
  14 {p}:workers:info  hash  worker, to when it started, a space, and what it said of itself
  15 {p}:workers:asked hash  worker that was asked to drain, to when the one that was asked had started
  and apart {p}:runs, {p}:open  zset  run, by when it was created: all, and those not known to have ended
            {p}:sweeper         string  the process that sweeps for all, and when it said so

Channels bear the names of the keys 1 and 3 of a run, and 1 of the queue. A notice is "<epoch> <first> <last> <ended>", LF, the batch's lines (left
out when they are long); "m" when only marks have changed; "" when something else has, or all is gone.

Numbers go in and out as text: Lua's are doubles, exact up to 2^53, and never printed but by `whole`. ]]

-- what begins with LIMIT stands in `loom.model.limits`

local function whole(number) return string.format('%.0f', number) end

local function refuse(word, ...) return redis.error_reply(table.concat({'LOOM', word, ...}, ' ')) end

local function publish(channel, text) redis.call('SPUBLISH', channel, text) end

local function tell(channel, epoch, first, last, ended, payload)
  local text = table.concat({epoch, first, last, ended}, ' ')
  if #payload <= LIMIT_NOTICE_BYTES then text = text .. '\n' .. payload end
  publish(channel, text)
end

-- epochs are kept as "<epoch>:<first seq> …"; one that wrote nothing leaves the list

local function add_epoch(epochs, epoch, tail)
  local kept = {}
  for known, first in string.gmatch(epochs, '(%d+):(%d+)') do
    if tonumber(first) <= tail then kept[#kept + 1] = known .. ':' .. first end
  end
  kept[#kept + 1] = epoch .. ':' .. whole(tail + 1)
  return table.concat(kept, ' ')
end

local function epoch_of(epochs, seq)
  local found = '0'
  for known, first in string.gmatch(epochs, '(%d+):(%d+)') do
    if tonumber(first) <= seq then found = known end
  end
  return found
end

local function newest_batch(out)
  local entry = redis.call('XREVRANGE', out, '+', '-', 'COUNT', 1)[1]
  if entry then return entry[1], entry[2][2], entry[2][6] end
end

-- An ended run is kept for long at first, so that whoever claims it from the queue still sees that it has ended;
-- `settle` makes that the time for which it is to be kept.

local function close(keys, args, from)
  local head = keys[1]
  local state, error, now, unsettled = args[from], args[from + 1], args[from + 2], args[from + 3]
  redis.call('HSET', head, 'ended', '1', 'state', state, 'error', error, 'ended_at', now)
  for _, key in ipairs(keys) do redis.call('PEXPIRE', key, unsettled) end
  publish(keys[3], '')
end

-- with the last batch, which tells the result, only of a run that has ended

local function head_of(keys)
  local head = redis.call('HGETALL', keys[1])
  if #head == 0 then return refuse('GONE') end
  local payload = ''
  if redis.call('HGET', keys[1], 'ended') == '1' then payload = select(3, newest_batch(keys[2])) or '' end
  return {head, payload}
end

-- keys: 1 to 6; meta, input, inbox epoch, milliseconds to keep it

local function create(keys, args)
  local head = keys[1]
  if redis.call('EXISTS', head) == 0 then
    redis.call('HSET', head, 'meta', args[1], 'input', args[2], 'inbox_epoch', args[3], 'keep', args[4],
      'epochs', '', 'epoch', '-1', 'first', '1', 'tail', '0', 'written', '0', 'forgotten', '0', 'ended', '0',
      'state', 'queued', 'inbox_tail', '0', 'inbox_bytes', '0', 'beat', '0', 'marked', '0')
    publish(head, '')
  else
    redis.call('HINCRBY', head, 'repeats', 1)
  end
  return head_of(keys)
end

-- token, digits, now, failed attempts

local function fence(keys, args)
  local head, tokens = keys[1], keys[6]
  local token, digits, now = args[1], args[2], args[3]
  local epoch, epochs, tail, ended, written, forgotten, known =
    unpack(redis.call('HMGET', head, 'epoch', 'epochs', 'tail', 'ended', 'written', 'forgotten', 'failures'))
  if not epoch then return refuse('GONE') end
  local size = whole(tonumber(written) - tonumber(forgotten))
  local drawn = redis.call('HGET', tokens, token)
  if drawn and drawn ~= epoch then return refuse('FENCED', epoch) end
  local failures = whole(math.max(tonumber(known or '0'), tonumber(args[4])))
  if failures ~= (known or '0') then redis.call('HSET', head, 'failures', failures) end
  if drawn or ended == '1' then return {epoch, tail, ended, size, failures} end
  local attempt = math.max(math.floor(tonumber(epoch) / 1e8), 0) + 1
  epoch = whole(attempt * 1e8 + tonumber(digits))
  redis.call('HSET', head, 'epoch', epoch, 'epochs', add_epoch(epochs, epoch, tonumber(tail)), 'state', 'running')
  redis.call('HSETNX', head, 'started', now)
  redis.call('HSET', tokens, token, epoch)
  return {epoch, tail, '0', size, failures}
end

-- Sent again is success. It is written all the same: WAIT after a call that wrote nothing waits for nothing.

local function repeated(head, out, epoch, tail, ended, args)
  if args[1] ~= epoch then return refuse('FENCED', epoch) end
  local id, first, payload = newest_batch(out)
  if id == args[1] .. '-' .. args[3] and first == args[2] and payload == args[4] and (ended == '1') == (args[5] ~= nil) then
    redis.call('HINCRBY', head, 'repeats', 1)
    return 1
  end
  if ended == '1' then return refuse('ENDED') end
  return refuse('CONFLICT', tail)
end

-- epoch, first, last, payload; to end the log with it (and with all six keys) state, error, now, unsettled

local function append(keys, args)
  local head, out = keys[1], keys[2]
  local epoch, tail, ended, written = unpack(redis.call('HMGET', head, 'epoch', 'tail', 'ended', 'written'))
  if not epoch then
    publish(head, '') -- nobody has told the viewers, if all was flushed
    return refuse('GONE')
  end
  if args[1] ~= epoch or ended == '1' or tonumber(args[2]) ~= tonumber(tail) + 1 then
    return repeated(head, out, epoch, tail, ended, args)
  end
  redis.call('XADD', out, epoch .. '-' .. args[3], 'f', args[2], 'b', written, 'p', args[4])
  redis.call('HSET', head, 'tail', args[3], 'written', whole(tonumber(written) + #args[4]))
  if args[5] then close(keys, args, 5) end
  tell(head, epoch, args[2], args[3], args[5] and '1' or '0', args[4])
  return 1
end

-- digits, line, and as for `append`

local function end_unstarted(keys, args)
  local head, out = keys[1], keys[2]
  local epoch, epochs, ended = unpack(redis.call('HMGET', head, 'epoch', 'epochs', 'ended'))
  if not epoch then return refuse('GONE') end
  if ended == '1' or epochs ~= '' then
    redis.call('HINCRBY', head, 'repeats', 1)
    return (ended == '1' and tonumber(epoch) < 1e8) and 1 or 0
  end
  epoch = args[1]
  redis.call('HSET', head, 'epoch', epoch, 'epochs', epoch .. ':1', 'tail', '1', 'written', #args[2])
  redis.call('XADD', out, epoch .. '-1', 'f', '1', 'b', '0', 'p', args[2])
  close(keys, args, 3)
  tell(head, epoch, '1', '1', '1', args[2])
  return 1
end

-- sender NUL id, message with its line end, most messages, most bytes (none: the cancel, for which there is always room)

local function send(keys, args)
  local head, inbox, sent = keys[1], keys[3], keys[4]
  local epoch, tail, bytes, ended = unpack(redis.call('HMGET', head, 'inbox_epoch', 'inbox_tail', 'inbox_bytes', 'ended'))
  if not epoch then return refuse('GONE') end
  local there = redis.call('HGET', sent, args[1])
  if there then
    redis.call('HINCRBY', head, 'repeats', 1)
    return {epoch, there}
  end
  if ended == '1' then return refuse('ENDED') end
  local size = tonumber(bytes) + #args[2]
  if args[3] and (tonumber(tail) >= tonumber(args[3]) or size > tonumber(args[4])) then
    return refuse('ROOM', tail, bytes)
  end
  local seq = whole(tonumber(tail) + 1)
  redis.call('XADD', inbox, epoch .. '-' .. seq, 'p', args[2])
  redis.call('HSET', head, 'inbox_tail', seq, 'inbox_bytes', whole(size))
  redis.call('HSET', sent, args[1], seq)
  tell(inbox, epoch, seq, seq, '0', args[2])
  return {epoch, seq}
end

-- keys: head, outbox or inbox; behind which id, most batches' bytes, most chunks

local function read(keys, args)
  local facts = redis.call('HMGET', keys[1], 'epochs', 'first', 'tail', 'ended', 'inbox_epoch', 'inbox_tail')
  if not facts[1] then return refuse('GONE') end
  local bytes, chunks = tonumber(args[2]), tonumber(args[3])
  local entries, after, count = {}, args[1], 2
  repeat
    local some = redis.call('XRANGE', keys[2], '(' .. after, '+', 'COUNT', count)
    for _, entry in ipairs(some) do
      entries[#entries + 1] = entry
      bytes = bytes - #entry[2][#entry[2]]
      chunks = chunks - 1
      after = entry[1]
      if bytes <= 0 or chunks <= 0 then break end
    end
    local more = #some == count
    count = math.min(count * 2, 64)
  until not more or bytes <= 0 or chunks <= 0
  return {facts, entries}
end

-- seq; the first seq that is kept, and how many entries were cleared away. What is forgotten is not read, and cleared so
-- many entries a call, by whole nodes of the stream: what is left of it is the next call's, and nobody reads it

local function trim(keys, args)
  local head, out = keys[1], keys[2]
  local epochs, first = unpack(redis.call('HMGET', head, 'epochs', 'first'))
  if not epochs then return refuse('GONE') end
  local before = tonumber(args[1])
  local from = epoch_of(epochs, before) .. '-' .. whole(math.max(before, 0))
  local entry = redis.call('XRANGE', out, from, '+', 'COUNT', 1)[1]
  entry = entry or redis.call('XREVRANGE', out, '+', '-', 'COUNT', 1)[1]
  if entry and tonumber(entry[2][2]) > tonumber(first) then
    first = entry[2][2]
    redis.call('HSET', head, 'first', first, 'forgotten', entry[2][4])
  end
  local kept = epoch_of(epochs, tonumber(first)) .. '-' .. first
  return {first, redis.call('XTRIM', out, 'MINID', '~', kept, 'LIMIT', LIMIT_CLEARED)}
end

local function drop(keys)
  redis.call('UNLINK', unpack(keys))
  publish(keys[1], '')
  publish(keys[3], '')
  return 1
end

local function settle(keys)
  local ended, keep = unpack(redis.call('HMGET', keys[1], 'ended', 'keep'))
  if ended ~= '1' then return ended and 0 or 1 end
  for _, key in ipairs(keys) do
    if keep == '-1' then redis.call('PERSIST', key) else redis.call('PEXPIRE', key, keep) end
  end
  return 1
end

-- now

local function touch(keys, args)
  local ended = redis.call('HGET', keys[1], 'ended')
  if not ended then return refuse('GONE') end
  if ended == '0' then
    redis.call('HINCRBY', keys[1], 'beat', 1)
    redis.call('HSET', keys[1], 'heard', args[1])
  end
  return 1
end

-- Marks as `loom.stores.positions` has them: a beat is the server's time of the mark in milliseconds, and a reader that
-- has been silent for `silence` of them is forgotten: not seen any more, and cleared away when its place is needed

local function milliseconds()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

local function beat_of(mark) return tonumber(string.match(mark, ' (%d+)')) or 0 end

local function forget_silent(marks, now, silence)
  local all = redis.call('HGETALL', marks)
  for i = 1, #all, 2 do
    if math.abs(now - beat_of(all[i + 1])) > silence then redis.call('HDEL', marks, all[i]) end
  end
end

-- reader, how long one may be silent, how many there may be, and the seq unless it has left

local function mark(keys, args)
  local head, marks = keys[1], keys[5]
  if redis.call('EXISTS', head) == 0 then return refuse('GONE') end
  local reader, silence, most, seq = args[1], args[2], args[3], args[4]
  if seq then
    local before, beat = redis.call('HGET', marks, reader), milliseconds()
    if before then
      if math.abs(beat - beat_of(before)) <= tonumber(silence) then beat = math.max(beat, beat_of(before) + 1) end
    elseif redis.call('HLEN', marks) >= tonumber(most) then
      forget_silent(marks, beat, tonumber(silence))
      if redis.call('HLEN', marks) >= tonumber(most) then return refuse('READERS') end
    end
    redis.call('HSET', marks, reader, seq .. ' ' .. whole(beat))
    local left = redis.call('PTTL', head)
    if left > 0 then redis.call('PEXPIRE', marks, left) end
  else
    redis.call('HDEL', marks, reader)
  end
  redis.call('HINCRBY', head, 'marked', 1)
  publish(head, 'm')
  return 1
end

-- all of them, and what the time is: who asks leaves out those that are forgotten

local function marks_of(keys)
  if redis.call('EXISTS', keys[1]) == 0 then return refuse('GONE') end
  return {redis.call('HGETALL', keys[5]), whole(milliseconds())}
end

-- --- the queue ------------------------------------------------------------------------------------------------------
-- An entry: q its queue, a actor, k key ("" for none), r rank of its priority, n number, p place, x crashes; and of the
-- claim on it: c number, w worker, l lease (of a pause: its length), h number of its kind

local COUNTERS, ENTRIES, METAS, INPUTS, READY, ACTORS, LINES = 1, 2, 3, 4, 5, 6, 7
local STANDING, KINDS, LATER, ALL, TOLD, WORKERS, INFO, ASKED = 8, 9, 10, 11, 12, 13, 14, 15

local function unpacked(packed)
  local fine, value = pcall(cmsgpack.unpack, packed)
  return fine and type(value) == 'table' and value or nil
end

-- None is there for a run whose entry cannot be read: a sweep puts it back. What is left of it in the orders is cleared
-- away by whoever meets it: a name is good only while the entry bears it.

local function stands(entry) return entry.p == 'leased' or entry.p == 'paused' end

local function entry_of(keys, run)
  local packed = redis.call('HGET', keys[ENTRIES], run)
  local entry = packed and unpacked(packed)
  if not entry or not (entry.p and entry.q and entry.a and entry.k and entry.r and entry.n) then return end
  if stands(entry) and not (entry.l and entry.h) then return end
  entry.run = run
  return entry
end

local function keep(keys, entry)
  local run = entry.run
  entry.run = nil
  redis.call('HSET', keys[ENTRIES], run, cmsgpack.pack(entry))
  entry.run = run
end

local function count(keys, name) return redis.call('HINCRBY', keys[COUNTERS], name, 1) end

local function seconds()
  local time = redis.call('TIME')
  return tonumber(time[1]) + tonumber(time[2]) / 1e6
end

local function padded(number) return string.format('%016.0f', number) end

local function names_of(entry)
  local place = padded(entry.n) .. ' ' .. entry.run
  local rank = entry.q .. ' ' .. entry.r .. ' '
  return rank .. place, rank .. entry.a .. ' ' .. place, entry.a .. ' ' .. entry.k .. ' ' .. place
end

-- Claims of about the same lease stand together, what was not renewed for longest first: what has lapsed is found without
-- looking at the others, however many there are, and nothing of another queue, actor or lease hides it. With more than
-- 2^13 kinds at once some renewals would count as one, which does no harm.

local KIND = 2 ^ 40

local function about(lease)
  local part, power = math.frexp(tonumber(lease))
  return string.format('%.17g', math.ldexp(math.floor(part * 8) / 8, power))
end

local function kind_of(entry) return table.concat({entry.q, entry.a, entry.p, about(entry.l)}, ' ') end

local function member_of(entry) return entry.l .. ' ' .. entry.run end

local function score_of(kind, renewal) return whole(kind * KIND + renewal) end

-- the first number that no other has

local function number_of(keys, kind)
  local known = redis.call('ZSCORE', keys[KINDS], kind)
  if known then return tonumber(known) end
  local taken, number = redis.call('ZRANGE', keys[KINDS], 0, -1, 'WITHSCORES'), 0
  while tonumber(taken[2 * number + 2]) == number do number = number + 1 end
  redis.call('ZADD', keys[KINDS], number, kind)
  return number
end

local function stand(keys, entry, renewal)
  entry.h = number_of(keys, kind_of(entry))
  redis.call('ZADD', keys[STANDING], score_of(entry.h, renewal), member_of(entry))
end

-- what is told of one: its kind, score, lease and run

local function standing(kind, score, member) return kind .. ' ' .. whole(tonumber(score)) .. ' ' .. member end

local function first_of(keys, number)
  local first, last = score_of(number, 0), '(' .. score_of(number + 1, 0)
  return redis.call('ZRANGEBYSCORE', keys[STANDING], first, last, 'WITHSCORES', 'LIMIT', 0, 1)
end

local function stand_no_more(keys, kind, number, member)
  redis.call('ZREM', keys[STANDING], member)
  if #first_of(keys, number) == 0 then redis.call('ZREM', keys[KINDS], kind) end
end

local function make_ready(keys, entry)
  local ready, actor = names_of(entry)
  entry.p = 'ready'
  redis.call('ZADD', keys[READY], 0, ready)
  redis.call('ZADD', keys[ACTORS], 0, actor)
  publish(keys[COUNTERS], entry.q)
end

local function first_by_name(zset, prefix)
  return redis.call('ZRANGEBYLEX', zset, '[' .. prefix, '(' .. prefix .. '\255', 'LIMIT', 0, 1)[1]
end

local function last_word(name) return string.match(name, '([^ ]*)$') end

-- The first of a line may go, whoever it is but `own`, which is about to be kept by its caller; true if that is first.

local function promote(keys, actor, key, own)
  while true do
    local name = first_by_name(keys[LINES], actor .. ' ' .. key .. ' ')
    if not name or name == own then return name == own end
    local first = entry_of(keys, last_word(name))
    if first and select(3, names_of(first)) == name then
      if first.p == 'behind' then
        make_ready(keys, first)
        keep(keys, first)
      end
      return false
    end
    redis.call('ZREM', keys[LINES], name)
  end
end

-- an entry that cannot be read

local function discard(keys, run)
  local fine, meta = pcall(cjson.decode, redis.call('HGET', keys[METAS], run) or '')
  redis.call('ZREM', keys[ALL], run)
  for _, hash in ipairs({ENTRIES, METAS, INPUTS}) do redis.call('HDEL', keys[hash], run) end
  if fine and type(meta) == 'table' and type(meta.key) == 'string' and type(meta.actor) == 'string' then
    promote(keys, meta.actor, meta.key)
  end
end

-- takes its place in the order, and in its key's line

local function enter(keys, entry)
  entry.n = count(keys, 'number')
  redis.call('ZADD', keys[ALL], entry.n, entry.run)
  local _, _, line = names_of(entry)
  if entry.k ~= '' then redis.call('ZADD', keys[LINES], 0, line) end
  entry.p = 'behind'
  if entry.k == '' or promote(keys, entry.a, entry.k, line) then make_ready(keys, entry) end
end

local function leave_places(keys, entry)
  local ready, actor = names_of(entry)
  redis.call('ZREM', keys[READY], ready)
  redis.call('ZREM', keys[ACTORS], actor)
  if stands(entry) then stand_no_more(keys, kind_of(entry), entry.h, member_of(entry)) end
  redis.call('ZREM', keys[LATER], entry.run)
end

local function remove(keys, entry)
  leave_places(keys, entry)
  redis.call('ZREM', keys[ALL], entry.run)
  for _, hash in ipairs({ENTRIES, METAS, INPUTS}) do redis.call('HDEL', keys[hash], entry.run) end
  if entry.k == '' then return end
  local _, _, line = names_of(entry)
  redis.call('ZREM', keys[LINES], line)
  promote(keys, entry.a, entry.k)
end

local function let_in(keys)
  for _, run in ipairs(redis.call('ZRANGEBYSCORE', keys[LATER], '-inf', seconds(), 'LIMIT', 0, LIMIT_PUT_DUE)) do
    redis.call('ZREM', keys[LATER], run)
    local entry = entry_of(keys, run)
    if entry and entry.p == 'later' then
      enter(keys, entry)
      keep(keys, entry)
    end
  end
end

-- run, meta, input, queue, actor, key, rank, not before

local function write_entry(keys, args)
  redis.call('HSET', keys[METAS], args[1], args[2])
  redis.call('HSET', keys[INPUTS], args[1], args[3])
  return {run = args[1], q = args[4], a = args[5], k = args[6], r = args[7], x = 0, n = 0, c = 0, w = '', l = 0}
end

local function put(keys, args)
  if entry_of(keys, args[1]) then return count(keys, 'repeats') end
  local entry = write_entry(keys, args)
  if args[8] ~= '' and tonumber(args[8]) > seconds() then
    entry.p = 'later'
    redis.call('ZADD', keys[LATER], args[8], entry.run)
    publish(keys[COUNTERS], entry.q)
  else
    enter(keys, entry)
  end
  keep(keys, entry)
  return 1
end

local function give(keys, entry, worker, lease)
  leave_places(keys, entry)
  entry.p, entry.w, entry.l, entry.c = 'leased', worker, lease, count(keys, 'number')
  stand(keys, entry, count(keys, 'renewals'))
  keep(keys, entry)
end

local function claim_of(keys, entry)
  return {redis.call('HGET', keys[METAS], entry.run), redis.call('HGET', keys[INPUTS], entry.run),
    whole(entry.c), whole(entry.x), entry.run}
end

-- like loom.model.priority: the golden-ratio step spreads the shares over whoever claims

local ORDERS = {{'0', '1', '2'}, {'1', '0', '2'}, {'2', '0', '1'}}

local function order(claims)
  local row = math.floor((claims % 65536) * 40503 % 65536 * 16 / 65536)
  return ORDERS[row < 12 and 1 or row < 15 and 2 or 3]
end

local function number_in(name) return tonumber(string.match(name, '(%d+) [^ ]*$')) end

local function oldest_but(keys, queue, rank, without)
  local prefix = queue .. ' ' .. rank .. ' '
  local after, best = prefix, nil
  while true do
    local name = redis.call('ZRANGEBYLEX', keys[ACTORS], '(' .. after, '(' .. prefix .. '\255', 'LIMIT', 0, 1)[1]
    if not name then return best end
    local actor = string.match(string.sub(name, #prefix + 1), '^([^ ]*)')
    if not without[actor] and (not best or number_in(name) < number_in(best)) then best = name end
    after = prefix .. actor .. ' \255'
  end
end

local function ready_by(keys, name)
  local entry = entry_of(keys, last_word(name))
  if entry and entry.p == 'ready' then
    local ready, actor = names_of(entry)
    if name == ready or name == actor then return entry end
  end
  redis.call('ZREM', keys[READY], name)
  redis.call('ZREM', keys[ACTORS], name)
  if not entry then discard(keys, last_word(name)) end
end

local function oldest(keys, queue, rank, without)
  while true do
    local name = first_by_name(keys[READY], queue .. ' ' .. rank .. ' ')
    if name and next(without) then name = oldest_but(keys, queue, rank, without) end
    local entry = name and ready_by(keys, name)
    if entry or not name then return entry end
  end
end

local function find(keys, queues, without, lapsed)
  for _, rank in ipairs(order(tonumber(redis.call('HGET', keys[COUNTERS], 'claims') or '0'))) do
    local best
    for _, queue in ipairs(queues) do
      local entry = oldest(keys, queue, rank, without)
      if entry and (not best or entry.n < best.n) then best = entry end
    end
    for _, entry in ipairs(lapsed) do
      if entry.r == rank and (not best or entry.n < best.n) then best = entry end
    end
    if best then return best end
  end
end

local function set_of(list)
  local set = {}
  for _, each in ipairs(list) do set[each] = true end
  return set
end

-- those that lapsed, as the worker was told of them, that nobody has renewed or taken since

local function still_lapsed(keys, seen, queues, without)
  local lapsed, wanted = {}, set_of(queues)
  for _, told in ipairs(seen) do
    local kind, score, member = string.match(told, '^(.*) (%d+) ([^ ]* [^ ]*)$')
    local now = redis.call('ZSCORE', keys[STANDING], member)
    if now and tonumber(now) == tonumber(score) then
      local entry = entry_of(keys, last_word(member))
      if not entry then
        stand_no_more(keys, kind, math.floor(score / KIND), member)
        discard(keys, last_word(member))
      elseif stands(entry) and wanted[entry.q] and not without[entry.a] then
        lapsed[#lapsed + 1] = entry
      end
    end
  end
  return lapsed
end

-- queues; at what the counter is, and of each kind the one that was not renewed for longest

local function look(keys, args)
  local found, wanted = {}, set_of(args)
  local kinds = redis.call('ZRANGE', keys[KINDS], 0, -1, 'WITHSCORES')
  for i = 1, #kinds, 2 do
    if wanted[string.match(kinds[i], '^[^ ]*')] then
      local number = tonumber(kinds[i + 1])
      local first = first_of(keys, number)
      if first[1] then
        found[#found + 1] = standing(kinds[i], first[2], first[1])
      else
        redis.call('ZREM', keys[KINDS], kinds[i])
      end
    end
  end
  return {redis.call('HGET', keys[COUNTERS], 'renewals') or '0', found}
end

-- of each kind its name, and up to which renewal: what stands, and no more of any than its part of what is told at once

local function unrenewed(keys, args)
  local found, part = {}, math.max(math.floor(LIMIT_LAPSING * 2 / #args), 1)
  for i = 1, #args, 2 do
    local number = tonumber(redis.call('ZSCORE', keys[KINDS], args[i]))
    if number then
      local first, last = score_of(number, 0), score_of(number, tonumber(args[i + 1]))
      local some = redis.call('ZRANGEBYSCORE', keys[STANDING], first, last, 'WITHSCORES', 'LIMIT', 0, part)
      for j = 1, #some, 2 do found[#found + 1] = standing(args[i], some[j + 1], some[j]) end
    end
  end
  return found
end

-- worker, the call's name, lease, and as JSON: queues, actors left out, what has lapsed; at what the counter is,
-- what is given, and if there is none, in how many ms one's time comes

local function claim(keys, args)
  let_in(keys)
  local worker, call = args[1], args[2]
  local told = redis.call('HGET', keys[TOLD], worker)
  told = told and unpacked(told)
  if told then
    local name, run, number = unpack(told)
    local entry = name == call and entry_of(keys, run)
    if entry and entry.w == worker and entry.c == number then
      return {redis.call('HGET', keys[COUNTERS], 'renewals'), claim_of(keys, entry)}
    end
  end
  local queues, without = cjson.decode(args[4]), set_of(cjson.decode(args[5]))
  local entry = find(keys, queues, without, still_lapsed(keys, cjson.decode(args[6]), queues, without))
  local renewals = redis.call('HGET', keys[COUNTERS], 'renewals') or '0'
  if not entry then
    local due = redis.call('ZRANGE', keys[LATER], 0, 0, 'WITHSCORES')[2]
    return {renewals, false, due and whole((tonumber(due) - seconds()) * 1000) or false}
  end
  if entry.p == 'leased' then entry.x = entry.x + 1 end
  give(keys, entry, worker, args[3])
  count(keys, 'claims')
  redis.call('HSET', keys[TOLD], worker, cmsgpack.pack({call, entry.run, entry.c}))
  return {renewals, claim_of(keys, entry)}
end

-- run, worker, claim's number

local function held_by(keys, args)
  local entry = entry_of(keys, args[1])
  if entry and entry.p == 'leased' and entry.w == args[2] and entry.c == tonumber(args[3]) then return entry end
end

-- of each claim run, worker, number; at what the counter is now, and of each whether it is still that worker's

local function renew(keys, args)
  local renewals, held = count(keys, 'renewals'), {}
  for i = 1, #args, 3 do
    local ours = held_by(keys, {args[i], args[i + 1], args[i + 2]})
    if ours then redis.call('ZADD', keys[STANDING], score_of(ours.h, renewals), member_of(ours)) end
    held[#held + 1] = ours and 1 or 0
  end
  return {whole(renewals), held}
end

local function ack(keys, args)
  if redis.call('HEXISTS', keys[ENTRIES], args[1]) == 0 then return 0 end
  local entry = held_by(keys, args)
  if not entry then return refuse('FENCED') end
  remove(keys, entry)
  local told = redis.call('HGET', keys[TOLD], args[2])
  if told and cmsgpack.unpack(told)[2] == args[1] then redis.call('HDEL', keys[TOLD], args[2]) end
  return 1
end

local function release(keys, args)
  local entry = held_by(keys, args)
  if not entry then return refuse('FENCED') end
  leave_places(keys, entry)
  entry.w, entry.l = '', 0
  if tonumber(args[4]) > 0 then
    entry.p, entry.l = 'paused', args[4]
    stand(keys, entry, count(keys, 'renewals'))
  else
    make_ready(keys, entry)
  end
  keep(keys, entry)
  return 1
end

-- run; and a place, if it is to be forgotten only there

local function forget(keys, args)
  local entry = entry_of(keys, args[1])
  if not entry or (args[2] and entry.p ~= args[2]) then return 0 end
  remove(keys, entry)
  return 1
end

-- as for `put`, then worker, lease: it is that worker's, whoever held it

local function seize(keys, args)
  local entry = entry_of(keys, args[1])
  if entry and entry.q ~= args[4] then return refuse('CONFLICT') end
  if not entry then
    entry = write_entry(keys, args)
    entry.n = count(keys, 'number')
    redis.call('ZADD', keys[ALL], entry.n, entry.run)
  end
  give(keys, entry, args[9], args[10]) -- whoever held it is not said to have crashed
  return claim_of(keys, entry)
end

local function unqueued(keys, args)
  local missing = {}
  for _, run in ipairs(args) do
    if not entry_of(keys, run) then missing[#missing + 1] = run end
  end
  return missing
end

-- which list ("all" or "later"), from which place in it, queue and place ("" for any), most; what fits, and how many
-- were seen

local function entries(keys, args)
  local found, from, most = {}, tonumber(args[2]), tonumber(args[5])
  local runs = redis.call('ZRANGE', keys[args[1] == 'all' and ALL or LATER], from, from + LIMIT_QUEUE_LOOK - 1)
  for _, run in ipairs(runs) do
    local entry = entry_of(keys, run)
    local place = entry and ((entry.p == 'later' or entry.p == 'paused') and 'delayed' or entry.p)
    if entry and (args[3] == '' or entry.q == args[3]) and (args[4] == '' or place == args[4]) then
      found[#found + 1] = {run, entry.q, entry.a, entry.k, entry.r, place, entry.w, whole(entry.c), whole(entry.x),
        redis.call('HGET', keys[METAS], run)}
      if #found == most then break end
    end
  end
  return {found, #runs}
end

local function forget_workers(keys, names)
  redis.call('ZREM', keys[WORKERS], unpack(names))
  for _, hash in ipairs({INFO, ASKED, TOLD}) do redis.call('HDEL', keys[hash], unpack(names)) end
end

-- name, what it says of itself, when it was started, seconds until it is forgotten; whether it was asked to drain. No
-- other worker is looked at, however many there are, but for some of those that fell silent

local function attend(keys, args)
  local now, name, started = seconds(), args[1], args[3]
  redis.call('ZADD', keys[WORKERS], string.format('%.6f', now), name)
  redis.call('HSET', keys[INFO], name, started .. ' ' .. args[2])
  local before = string.format('(%.6f', now - tonumber(args[4]))
  local silent = redis.call('ZRANGEBYSCORE', keys[WORKERS], '-inf', before, 'LIMIT', 0, LIMIT_SILENT_WORKERS)
  if #silent > 0 then forget_workers(keys, silent) end
  local asked = redis.call('HGET', keys[ASKED], name)
  if asked and asked ~= started then redis.call('HDEL', keys[ASKED], name) end
  return asked == started and 1 or 0
end

local function dismiss(keys, args)
  forget_workers(keys, args)
  return 1
end

-- seconds until a worker is forgotten; those that are there, and when they were seen

local function workers(keys, args)
  return redis.call('ZRANGEBYSCORE', keys[WORKERS], seconds() - tonumber(args[1]), '+inf', 'WITHSCORES')
end

local function ask_to_drain(keys, args)
  local seen, info = redis.call('ZSCORE', keys[WORKERS], args[1]), redis.call('HGET', keys[INFO], args[1])
  if not seen or not info or tonumber(seen) < seconds() - tonumber(args[2]) then return 0 end
  redis.call('HSET', keys[ASKED], args[1], string.match(info, '^[^ ]*'))
  return 1
end

-- keys: {p}:runs, {p}:open; run

local function index(keys, args)
  if redis.call('ZSCORE', keys[1], args[1]) then return 0 end
  local newest = redis.call('ZREVRANGE', keys[1], 0, 0, 'WITHSCORES')[2]
  local number = whole((newest and tonumber(newest) or 0) + 1)
  redis.call('ZADD', keys[1], number, args[1])
  redis.call('ZADD', keys[2], number, args[1])
  return 1
end

-- keys: {p}:sweeper; who asks, for how many seconds it is his. By the time that stands with his name, not by the key's
-- own: that of a holder who is gone would last as much longer as the clock is put back

local function turn(keys, args)
  local now, said = seconds(), redis.call('GET', keys[1])
  local holder, since = string.match(said or '', '^(%S+) (%S+)$')
  local passed = since and now - tonumber(since)
  if holder and holder ~= args[1] and passed >= 0 and passed < tonumber(args[2]) then return 0 end
  redis.call('SET', keys[1], args[1] .. ' ' .. string.format('%.3f', now), 'EX', args[2])
  return 1
end

local function register(name, callback, ...)
  redis.register_function{function_name = 'loom_VERSION_' .. name, callback = callback, flags = {...}}
end

register('create', create)
register('fence', fence)
register('append', append)
register('end_unstarted', end_unstarted)
register('send', send)
register('mark', mark)
-- these are allowed when the server has no memory left: they free some, or stop what takes more
register('trim', trim, 'allow-oom')
register('drop', drop, 'allow-oom')
register('settle', settle, 'allow-oom')
register('touch', touch, 'allow-oom')
register('head', head_of, 'no-writes')
register('read', read, 'no-writes')
register('marks', marks_of, 'no-writes')

register('put', put)
register('seize', seize)
register('index', index)
register('turn', turn, 'allow-oom')
register('attend', attend)
register('look', look, 'allow-oom')
register('unrenewed', unrenewed, 'no-writes')
register('claim', claim, 'allow-oom')
register('renew', renew, 'allow-oom')
register('ack', ack, 'allow-oom')
register('release', release, 'allow-oom')
register('forget', forget, 'allow-oom')
register('dismiss', dismiss, 'allow-oom')
register('ask_to_drain', ask_to_drain, 'allow-oom')
register('unqueued', unqueued, 'no-writes')
register('entries', entries, 'no-writes')
register('workers', workers, 'no-writes')
