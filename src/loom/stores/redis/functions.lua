#!lua name=loom_VERSION

--[[ All that has to happen in one atomic act: logs, runs, their lists, and the queue.

Keys of a log, in this order (p: the prefix; T: the log's name up to its first "/", in braces, so that a cluster keeps a
run's logs together; S: the rest of the name). The word before the braces says which:
  1 p:log:{T}S       hash    kind (who writes it, s one or m many; what it holds, l lines or o opaque records), type (its
                             content type), records, bytes (the bounds of `send`, or ""), epoch (that may write) epochs
                             first tail ended written (payload bytes) forgotten (of them, those that were trimmed) failures
                             marked repeats (of what was written already)
  2 p:batches:{T}S   stream  an entry a batch, <epoch>-<last seq>, f the first seq, b the bytes written before it, p the
                             payload; what ends before the log's first is forgotten, and cleared bit by bit
  3 p:producers:{T}S hash    producer, to "<its epoch> <its newest seq> <the seq in the log>"
  4 p:positions:{T}S hash    reader, to "<seq> <beat>"
  5 p:tokens:{T}S    hash    a fence's token, to the epoch that it drew
Keys of a run: 1 p:run:{T}, a hash: its record: meta input keep state error started ended_at beat heard; then those of its
  outbox (2 to 6) and of its inbox (7 to 11).

Keys of the lists, in the slot of the queue:
  1 {p}:runs    zset  run, by its number: the order in which runs were created
  2 {p}:open    zset  those of them that are not known to have ended
  3 {p}:lists   zset  "<filter> NUL <number> NUL <run>", by name; a filter is "state running", "actor A", "label N V" …,
                      with NUL for each space. A hint: what a list finds by it is compared with the run's record
  4 {p}:listed  hash  run, to its filters but for states, packed
  5 {p}:format  string the number of the format of all these keys

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
  and apart {p}:sweeper         string  the process that sweeps for all, and when it said so

Channels bear the names of the keys 1 of a log, and 1 of the queue. A notice is "<epoch> <first> <last> <ended>", LF, the batch's lines (left
out when they are long or opaque); "m" when only marks have changed; "" when something else has, or all is gone.

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

local RECORD, OUT, OUT_BATCHES, IN = 1, 2, 3, 7

-- An ended run is kept for long at first, so that whoever claims it from the queue still sees that it has ended;
-- `settle` makes that the time for which it is to be kept. Keys of a run; state, error, now, unsettled

local function close(keys, args, from)
  local state, error, now, unsettled = args[from], args[from + 1], args[from + 2], args[from + 3]
  redis.call('HSET', keys[RECORD], 'state', state, 'error', error, 'ended_at', now)
  redis.call('HSET', keys[OUT], 'ended', '1')
  redis.call('HSET', keys[IN], 'ended', '1')
  for _, key in ipairs(keys) do redis.call('PEXPIRE', key, unsettled) end
  publish(keys[IN], '')
end

-- --- runs -----------------------------------------------------------------------------------------------------------

-- with the last batch, which tells the result, only of a run that has ended; keys of a run

local function head_of(keys)
  local record = redis.call('HGETALL', keys[RECORD])
  if #record == 0 then return refuse('GONE') end
  local log = redis.call('HMGET', keys[OUT], 'epochs', 'first', 'tail', 'ended')
  local payload = ''
  if log[4] == '1' then payload = select(3, newest_batch(keys[OUT_BATCHES])) or '' end
  return {record, log, payload}
end

-- without input and result; keys: record, outbox

local function light_head(keys)
  local record = redis.call('HMGET', keys[1], 'meta', 'state', 'error', 'started', 'ended_at', 'beat')
  if not record[1] then return refuse('GONE') end
  return {record, redis.call('HMGET', keys[2], 'epochs', 'first', 'tail', 'ended')}
end

local function make_log(log, kind, type, records, bytes, epoch)
  redis.call('HSET', log, 'kind', kind, 'type', type, 'records', records, 'bytes', bytes, 'epoch', epoch,
    'epochs', epoch == '-1' and '' or epoch .. ':1', 'first', '1', 'tail', '0', 'ended', '0', 'written', '0',
    'forgotten', '0', 'marked', '0')
  publish(log, '')
end

-- keys of a run; meta, input, milliseconds to keep it, and kind, type, records, bytes, epoch of both logs

local function create(keys, args)
  if redis.call('EXISTS', keys[RECORD]) == 0 then
    if redis.call('EXISTS', keys[OUT], keys[IN]) > 0 then return refuse('TAKEN') end
    redis.call('HSET', keys[RECORD], 'meta', args[1], 'input', args[2], 'keep', args[3], 'state', 'queued', 'beat', '0')
    make_log(keys[OUT], unpack(args, 4, 8))
    make_log(keys[IN], unpack(args, 9, 13))
  else
    redis.call('HINCRBY', keys[OUT], 'repeats', 1)
  end
  return head_of(keys)
end

-- keys of a run; digits, line, and as for `close`

local function cancel_unstarted(keys, args)
  local out = keys[OUT]
  local epoch, epochs, ended = unpack(redis.call('HMGET', out, 'epoch', 'epochs', 'ended'))
  if not epoch or redis.call('EXISTS', keys[RECORD]) == 0 then return refuse('GONE') end
  if ended == '1' or epochs ~= '' then
    redis.call('HINCRBY', out, 'repeats', 1)
    return (ended == '1' and tonumber(epoch) < 1e8) and 1 or 0
  end
  epoch = args[1]
  redis.call('HSET', out, 'epoch', epoch, 'epochs', epoch .. ':1', 'tail', '1', 'written', #args[2])
  redis.call('XADD', keys[OUT_BATCHES], epoch .. '-1', 'f', '1', 'b', '0', 'p', args[2])
  close(keys, args, 3)
  tell(out, epoch, '1', '1', '1', args[2])
  return 1
end

local function drop_run(keys)
  if redis.call('EXISTS', keys[RECORD]) == 0 then return 0 end
  redis.call('UNLINK', unpack(keys))
  publish(keys[OUT], '')
  publish(keys[IN], '')
  return 1
end

-- keys of a run; its state, if it has ended, and "" for one that is gone

local function settle(keys)
  local keep, state = unpack(redis.call('HMGET', keys[RECORD], 'keep', 'state'))
  if not keep then return '' end
  if redis.call('HGET', keys[OUT], 'ended') ~= '1' then return false end
  for _, key in ipairs(keys) do
    if keep == '-1' then redis.call('PERSIST', key) else redis.call('PEXPIRE', key, keep) end
  end
  return state
end

-- keys: record, outbox; now

local function heartbeat(keys, args)
  if redis.call('EXISTS', keys[1]) == 0 then return refuse('GONE') end
  if redis.call('HGET', keys[2], 'ended') == '0' then
    redis.call('HINCRBY', keys[1], 'beat', 1)
    redis.call('HSET', keys[1], 'heard', args[1])
  end
  return 1
end

-- --- logs: keys of a log, but where others are named ------------------------------------------------------------------

local function info(keys)
  local facts = redis.call('HMGET', keys[1], 'kind', 'type', 'records', 'bytes', 'epochs', 'first', 'tail', 'ended',
    'written', 'forgotten')
  if not facts[1] then return refuse('GONE') end
  return facts
end

-- kind, type, records, bytes, epoch; with the record of the run whose log would bear this name, if any could

local function create_log(keys, args)
  if keys[6] and redis.call('EXISTS', keys[6]) == 1 then return refuse('TAKEN') end
  if redis.call('EXISTS', keys[1]) == 0 then
    make_log(keys[1], unpack(args))
  else
    local there = redis.call('HMGET', keys[1], 'kind', 'type', 'records', 'bytes')
    for i = 1, 4 do
      if there[i] ~= args[i] then return refuse('TAKEN') end
    end
    redis.call('HINCRBY', keys[1], 'repeats', 1)
  end
  return info(keys)
end

local function drop_log(keys)
  if keys[6] and redis.call('EXISTS', keys[6]) == 1 then return refuse('OWNED') end
  redis.call('UNLINK', unpack(keys, 1, 5))
  publish(keys[1], '')
  return 1
end

local function is_lines(kind) return string.sub(kind, 2) == 'l' end

-- token, digits, now, failed attempts; with the record of the run whose outbox it may be

local function fence(keys, args)
  local log, tokens = keys[1], keys[5]
  local token, digits, now = args[1], args[2], args[3]
  local epoch, epochs, tail, ended, written, forgotten, known, kind =
    unpack(redis.call('HMGET', log, 'epoch', 'epochs', 'tail', 'ended', 'written', 'forgotten', 'failures', 'kind'))
  if not epoch then return refuse('GONE') end
  if string.sub(kind, 1, 1) == 'm' then return refuse('MANY') end
  local size = whole(tonumber(written) - tonumber(forgotten))
  local drawn = redis.call('HGET', tokens, token)
  if drawn and drawn ~= epoch then return refuse('FENCED', epoch) end
  local failures = whole(math.max(tonumber(known or '0'), tonumber(args[4])))
  if failures ~= (known or '0') then redis.call('HSET', log, 'failures', failures) end
  if drawn or ended == '1' then return {epoch, tail, ended, size, failures} end
  local attempt = math.max(math.floor(tonumber(epoch) / 1e8), 0) + 1
  epoch = whole(attempt * 1e8 + tonumber(digits))
  redis.call('HSET', log, 'epoch', epoch, 'epochs', add_epoch(epochs, epoch, tonumber(tail)))
  redis.call('HSET', tokens, token, epoch)
  if keys[6] and redis.call('EXISTS', keys[6]) == 1 then
    redis.call('HSET', keys[6], 'state', 'running')
    redis.call('HSETNX', keys[6], 'started', now)
  end
  return {epoch, tail, '0', size, failures}
end

-- Sent again is success. It is written all the same: WAIT after a call that wrote nothing waits for nothing.

local function repeated(log, batches, epoch, tail, ended, args, ending)
  if args[1] ~= epoch then return refuse('FENCED', epoch) end
  local id, first, payload = newest_batch(batches)
  if id == args[1] .. '-' .. args[3] and first == args[2] and payload == args[4] and (ended == '1') == ending then
    redis.call('HINCRBY', log, 'repeats', 1)
    return 1
  end
  if ended == '1' then return refuse('ENDED') end
  return refuse('CONFLICT', tail)
end

-- epoch, first, last, payload. Returns nil when it was added: then its caller writes what goes with it, and tells

local function add(log, batches, args, ending)
  local epoch, tail, ended, written, kind =
    unpack(redis.call('HMGET', log, 'epoch', 'tail', 'ended', 'written', 'kind'))
  if not epoch then
    publish(log, '') -- nobody has told the viewers, if all was flushed
    return refuse('GONE')
  end
  if kind ~= 'sl' then
    if string.sub(kind, 1, 1) == 'm' then return refuse('MANY') end
    if args[2] ~= args[3] then return refuse('OPAQUE') end
  end
  if args[1] ~= epoch or ended == '1' or tonumber(args[2]) ~= tonumber(tail) + 1 then
    return repeated(log, batches, epoch, tail, ended, args, ending)
  end
  redis.call('XADD', batches, epoch .. '-' .. args[3], 'f', args[2], 'b', written, 'p', args[4])
  redis.call('HSET', log, 'tail', args[3], 'written', whole(tonumber(written) + #args[4]))
  return nil, kind
end

local function tell_added(log, kind, args, ending)
  local facts = {args[1], args[2], args[3], ending and '1' or '0'}
  if kind == 'sl' then tell(log, args[1], args[2], args[3], facts[4], args[4]) else publish(log, table.concat(facts, ' ')) end
  return 1
end

-- keys: log, batches; as for `add`, and "1" if the log ends with it

local function append(keys, args)
  local ending = args[5] ~= nil
  local reply, kind = add(keys[1], keys[2], args, ending)
  if reply then return reply end
  if ending then redis.call('HSET', keys[1], 'ended', '1') end
  return tell_added(keys[1], kind, args, ending)
end

-- keys of a run; as for `add`, then as for `close`: its end, or that of a log that bears a name like a run's

local function finish(keys, args)
  local reply, kind = add(keys[OUT], keys[OUT_BATCHES], args, true)
  if reply then return reply end
  if redis.call('EXISTS', keys[RECORD]) == 1 then
    close(keys, args, 5)
  else
    redis.call('HSET', keys[OUT], 'ended', '1')
  end
  return tell_added(keys[OUT], kind, args, true)
end

-- producer, its epoch, its seq, record, whether the log ends with it, whether it finds room in any case ("1" or "")

local function send(keys, args)
  local log, batches, producers = keys[1], keys[2], keys[3]
  local epoch, first, tail, written, forgotten, ended, kind, records, bytes = unpack(redis.call('HMGET', log,
    'epoch', 'first', 'tail', 'written', 'forgotten', 'ended', 'kind', 'records', 'bytes'))
  if not epoch then return refuse('GONE') end
  if string.sub(kind, 1, 1) == 's' then return refuse('SINGLE') end
  local record = args[4]
  if is_lines(kind) then
    if string.find(record, '\n', 1, true) then return refuse('LINES') end
    record = record .. '\n'
  end
  local known, expected = redis.call('HGET', producers, args[1]), 0
  if known then
    local its_epoch, its_seq, place = string.match(known, '^(%d+) (%d+) (%d+)$')
    if tonumber(args[2]) < tonumber(its_epoch) then return refuse('OUTDATED', its_epoch) end
    if tonumber(args[2]) == tonumber(its_epoch) then
      if tonumber(args[3]) <= tonumber(its_seq) then
        redis.call('HINCRBY', log, 'repeats', 1)
        return {epoch, place}
      end
      expected = tonumber(its_seq) + 1
    end
  end
  if tonumber(args[3]) ~= expected then return refuse('GAP', whole(expected)) end
  if ended == '1' then return refuse('ENDED') end
  local count, stored = tonumber(tail) - tonumber(first) + 1, tonumber(written) - tonumber(forgotten)
  local full = records ~= '' and count >= tonumber(records) or bytes ~= '' and stored + #record > tonumber(bytes)
  if full and args[6] == '' then return refuse('ROOM', whole(#record), whole(count), whole(stored)) end
  local seq = whole(tonumber(tail) + 1)
  redis.call('XADD', batches, epoch .. '-' .. seq, 'f', seq, 'b', written, 'p', record)
  redis.call('HSET', log, 'tail', seq, 'written', whole(tonumber(written) + #record))
  if args[5] ~= '' then redis.call('HSET', log, 'ended', '1') end
  redis.call('HSET', producers, args[1], args[2] .. ' ' .. args[3] .. ' ' .. seq)
  if is_lines(kind) then
    tell(log, epoch, seq, seq, args[5] ~= '' and '1' or '0', record)
  else
    publish(log, table.concat({epoch, seq, seq, args[5] ~= '' and '1' or '0'}, ' '))
  end
  return {epoch, seq}
end

-- keys: log, batches; behind which id, most batches' bytes, most records

local function read(keys, args)
  local facts = redis.call('HMGET', keys[1], 'epochs', 'first', 'tail', 'ended', 'kind')
  if not facts[1] then return refuse('GONE') end
  local bytes, chunks = tonumber(args[2]), tonumber(args[3])
  local entries, after, count = {}, args[1], 2
  repeat
    local some = redis.call('XRANGE', keys[2], '(' .. after, '+', 'COUNT', count)
    for _, entry in ipairs(some) do
      entries[#entries + 1] = entry
      bytes = bytes - #entry[2][6]
      chunks = chunks - 1
      after = entry[1]
      if bytes <= 0 or chunks <= 0 then break end
    end
    local more = #some == count
    count = math.min(count * 2, 64)
  until not more or bytes <= 0 or chunks <= 0
  return {facts, entries}
end

-- keys: log, batches; seq; the first seq that is kept, and how many entries were cleared away. What is forgotten is not
-- read, and cleared so many entries a call, by whole nodes of the stream: what is left of it is the next call's

local function trim(keys, args)
  local log, batches = keys[1], keys[2]
  local epochs, first = unpack(redis.call('HMGET', log, 'epochs', 'first'))
  if not epochs then return refuse('GONE') end
  local before = tonumber(args[1])
  local from = epoch_of(epochs, before) .. '-' .. whole(math.max(before, 0))
  local entry = redis.call('XRANGE', batches, from, '+', 'COUNT', 1)[1]
  entry = entry or redis.call('XREVRANGE', batches, '+', '-', 'COUNT', 1)[1]
  if entry and tonumber(entry[2][2]) > tonumber(first) then
    first = entry[2][2]
    redis.call('HSET', log, 'first', first, 'forgotten', entry[2][4])
  end
  local kept = epoch_of(epochs, tonumber(first)) .. '-' .. first
  return {first, redis.call('XTRIM', batches, 'MINID', '~', kept, 'LIMIT', LIMIT_CLEARED)}
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
  local head, marks = keys[1], keys[4]
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
  return {redis.call('HGETALL', keys[4]), whole(milliseconds())}
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

-- --- lists: keys of the lists -----------------------------------------------------------------------------------------

local RUNS, OPEN, LISTS, LISTED, FORMAT = 1, 2, 3, 4, 5
local STATES = {'queued', 'running', 'completed', 'failed', 'cancelled', 'lost', 'dead'}

local function listing(filter, number, run) return table.concat({filter, padded(number), run}, '\0') end

local function state_filter(state) return 'state\0' .. state end

-- format; which one the keys have

local function check_format(keys, args)
  local found = redis.call('GET', keys[FORMAT])
  if not found and redis.call('EXISTS', keys[RUNS]) == 1 then return '1' end -- as before there were numbers
  if not found then redis.call('SET', keys[FORMAT], args[1]) end
  return found or args[1]
end

local function list_filters(keys, run, number, filters, state)
  for _, filter in ipairs(filters) do redis.call('ZADD', keys[LISTS], 0, listing(filter, number, run)) end
  redis.call('ZADD', keys[LISTS], 0, listing(state_filter(state), number, run))
  redis.call('HSET', keys[LISTED], run, cmsgpack.pack(filters))
end

-- run, format, filters: of a run that is created. 0: one of that id is listed, and not as open under these filters: its
-- record decides (`list_again`)

local function list(keys, args)
  local run, filters = args[1], {unpack(args, 3)}
  if redis.call('ZSCORE', keys[RUNS], run) then
    local same = redis.call('HGET', keys[LISTED], run) == cmsgpack.pack(filters)
    return same and redis.call('ZSCORE', keys[OPEN], run) and 1 or 0
  end
  local newest = redis.call('ZREVRANGE', keys[RUNS], 0, 0, 'WITHSCORES')[2]
  local number = (newest and tonumber(newest) or 0) + 1
  if not newest then redis.call('SET', keys[FORMAT], args[2]) end -- all may have been flushed under us
  redis.call('ZADD', keys[RUNS], number, run)
  redis.call('ZADD', keys[OPEN], number, run)
  list_filters(keys, run, number, filters, 'queued')
  return 1
end

-- run, state: which it has, or has soon

local function list_state(keys, args)
  local number = redis.call('ZSCORE', keys[RUNS], args[1])
  if number then redis.call('ZADD', keys[LISTS], 0, listing(state_filter(args[2]), tonumber(number), args[1])) end
  return 1
end

local function unlist_states(keys, run, number)
  for _, state in ipairs(STATES) do redis.call('ZREM', keys[LISTS], listing(state_filter(state), number, run)) end
end

-- run, and the state in which it has ended ("": it is gone)

local function list_ended(keys, args)
  local run, state = args[1], args[2]
  local number = tonumber(redis.call('ZSCORE', keys[RUNS], run))
  redis.call('ZREM', keys[OPEN], run)
  if not number or state == '' then return 0 end
  unlist_states(keys, run, number)
  redis.call('ZADD', keys[LISTS], 0, listing(state_filter(state), number, run))
  return 1
end

local function unlist_filters(keys, run, number)
  local filters = unpacked(redis.call('HGET', keys[LISTED], run) or '') or {}
  for _, filter in ipairs(filters) do redis.call('ZREM', keys[LISTS], listing(filter, number, run)) end
  unlist_states(keys, run, number)
end

-- run, "1" if it is open, its state, filters: as its record has them

local function list_again(keys, args)
  local run, number = args[1], tonumber(redis.call('ZSCORE', keys[RUNS], args[1]))
  if not number then return 0 end -- a sweep has forgotten what was listed
  unlist_filters(keys, run, number)
  list_filters(keys, run, number, {unpack(args, 4)}, args[3])
  if args[2] == '1' then redis.call('ZADD', keys[OPEN], number, run) end
  return 1
end

-- runs

local function unlist(keys, args)
  for _, run in ipairs(args) do
    local number = tonumber(redis.call('ZSCORE', keys[RUNS], run))
    if number then unlist_filters(keys, run, number) end
    redis.call('ZREM', keys[RUNS], run)
    redis.call('ZREM', keys[OPEN], run)
    redis.call('HDEL', keys[LISTED], run)
  end
  return #args
end

-- below which number ("": from the newest), most runs, filters; the runs that are listed under all of them, and below
-- which number to go on (false: there are no more). Looks through the filter with the fewest, so many a call

local function find(keys, args)
  local below, most, filters = args[1], tonumber(args[2]), {unpack(args, 3)}
  local fewest, narrow
  for _, filter in ipairs(filters) do
    local size = redis.call('ZLEXCOUNT', keys[LISTS], '[' .. filter .. '\0', '(' .. filter .. '\1')
    if not fewest or size < fewest then fewest, narrow = size, filter end
  end
  local top = below == '' and '(' .. narrow .. '\1' or '(' .. narrow .. '\0' .. padded(below)
  local some = redis.call('ZREVRANGEBYLEX', keys[LISTS], top, '[' .. narrow .. '\0', 'LIMIT', 0, LIMIT_LIST_LOOK)
  local found, last = {}, false
  for _, name in ipairs(some) do
    local number, run = string.match(name, '%z(%d+)%z([^%z]*)$')
    local fits = true
    for _, filter in ipairs(filters) do
      fits = fits and (filter == narrow or redis.call('ZSCORE', keys[LISTS], listing(filter, number, run)))
    end
    last = number
    if fits then found[#found + 1] = run end
    if #found == most then break end
  end
  if #found < most and #some < LIMIT_LIST_LOOK then last = false end
  return {found, last}
end

-- of each run its state: it is no longer in an earlier one

local function unlist_passed(keys, args)
  for i = 1, #args, 2 do
    local number = tonumber(redis.call('ZSCORE', keys[RUNS], args[i]))
    if number then
      for _, state in ipairs(STATES) do
        if state == args[i + 1] then break end
        redis.call('ZREM', keys[LISTS], listing(state_filter(state), number, args[i]))
      end
    end
  end
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
register('create_log', create_log)
register('fence', fence)
register('append', append)
register('finish', finish)
register('cancel_unstarted', cancel_unstarted)
register('send', send)
register('mark', mark)
-- these are allowed when the server has no memory left: they free some, or stop what takes more
register('trim', trim, 'allow-oom')
register('drop_run', drop_run, 'allow-oom')
register('drop_log', drop_log, 'allow-oom')
register('settle', settle, 'allow-oom')
register('heartbeat', heartbeat, 'allow-oom')
register('head', head_of, 'no-writes')
register('light_head', light_head, 'no-writes')
register('info', info, 'no-writes')
register('read', read, 'no-writes')
register('marks', marks_of, 'no-writes')

register('put', put)
register('seize', seize)
register('check_format', check_format, 'allow-oom')
register('list', list)
register('list_again', list_again)
register('list_state', list_state, 'allow-oom')
register('list_ended', list_ended, 'allow-oom')
register('unlist', unlist, 'allow-oom')
register('unlist_passed', unlist_passed, 'allow-oom')
register('find', find, 'no-writes')
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
