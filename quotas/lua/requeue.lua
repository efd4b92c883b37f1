-- A request that runs gives up its slot and waits again, at the head of its flow's queue, to go on from where it is: it was
-- told to (recall.lua), or its engine ends or has died. What it has computed stays charged.
--   ARGV[2]  request id
--   ARGV[3]  the engine that it waits for, the same or another
--   ARGV[4]  which pause of this request it is, from 1 on: a call that comes twice counts once
--   ARGV[5]  output tokens so far          ARGV[6]  what it cost so far
-- Returns "queued", "running" (it goes on at once), "lost" or "missing" (as charge.lua has them).

local id, to, pause = ARGV[2], ARGV[3], tonumber(ARGV[4])
local entry = read(request_key(id))
if not entry.state then
  return redis.call("EXISTS", reaped_key(id)) == 1 and "lost" or "missing"
end
if (tonumber(entry.pauses) or 0) >= pause then
  return entry.state
end
local engine, flow = entry.engine, entry.user
stay_alive(entry.replica)
if redis.call("SADD", prefix .. "engines", to) == 1 then
  all_engines = read_engines()
end
let_go(id, engine, entry)
redis.call("HSET", request_key(id), "engine", to, "state", "queued", "pauses", pause, "requeued_ms", now,
  "output_tokens", ARGV[5], "cost", ARGV[6])
redis.call("HDEL", request_key(id), "recalled", "prefill", "kv")
charge_flow(flow, tonumber(ARGV[6]) - (tonumber(entry.cost) or 0))
join_queue(id, to, flow, entry.revocable == "1", entry.number)
dispatch_after(engine, flow, id)
return redis.call("HGET", request_key(id), "state")
