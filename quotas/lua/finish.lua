-- The end of a request that held a lease: it is settled, the slot goes on, and the usage event is written.
--   ARGV[2]  request id        ARGV[4]  what it cost
--   ARGV[3]  engine            ARGV[5…] names and values of the event
-- The event is written even if the lease is gone (reaped, or lost with Redis' state): tokens were spent all the same.
-- It tells when the request was admitted by this clock, which decided in which windows it counts; where nothing of it is
-- known, it counts in none.

local id, engine = ARGV[2], ARGV[3]
local entry, event = read(request_key(id)), named(5)
local tokens = (tonumber(event.input_tokens) or 0) + (tonumber(event.output_tokens) or 0)
local reaped = amend(id, tokens, entry.state ~= nil)
-- It may be queued: paused, or a Redis that crashed has lost its last second.
if entry.state then
  engine = entry.engine
  redis.call("DEL", request_key(id))
  let_go(id, engine, entry)
  charge_flow(entry.user, tonumber(ARGV[4]) - (tonumber(entry.cost) or 0))
  give_back(entry, tokens)
  if event.outcome == "completed" then
    learn(engine, entry.user, event)
  end
  dispatch_after(engine, entry.user)
end
local enqueued_ms = entry.enqueued_ms or reaped.enqueued_ms
if enqueued_ms then
  settle({ "enqueued_ms", enqueued_ms, unpack(ARGV, 5) })
else
  settle({ unpack(ARGV, 5) })
end
return 1
