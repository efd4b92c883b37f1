-- Leases that nobody renewed are taken back, from all engines; what they cost is settled from what was charged. Dead
-- replicas are forgotten, and their queued requests with them. Any replica may call this, as often as it likes.
--   ARGV[2]  how many leases to take at the most
-- Returns the reaped ids.
--
-- Replicas reap every second. When nobody has for half a lease, Redis was away, or every replica was: nobody could renew
-- either. Then every lease gets one more life before it is judged. (Only half: the reaper may be back before those that
-- renew, and after a whole lease it would find them expired.)

-- An engine that no replica speaks of any more.
local ENGINE_REMEMBERED_MS = 60000

local last_ms = tonumber(redis.call("GET", prefix .. "reaped_ms") or 0)
redis.call("SET", prefix .. "reaped_ms", whole(now))
local reaped = {}

if now - last_ms >= LEASE_MS / 2 then
  for _, engine in ipairs(all_engines) do
    for _, id in ipairs(redis.call("ZRANGEBYSCORE", running_key(engine), "-inf", now)) do
      redis.call("ZADD", running_key(engine), now + LEASE_MS, id)
    end
  end
  return reaped
end

local someone_died = false
for _, replica in ipairs(redis.call("ZRANGEBYSCORE", prefix .. "alive", "-inf", now)) do
  redis.call("ZREM", prefix .. "alive", replica)
  redis.call("DEL", prefix .. "go:" .. replica)
  someone_died = true
end

local function forget_queued_of_the_dead(engine)
  for _, id in ipairs(redis.call("ZRANGE", queue_key(engine), 0, -1)) do
    local entry = read(request_key(id))
    if entry.replica and not is_alive(entry.replica) then
      drop(id, engine, entry)
    end
  end
end

-- What those that run hold together, made anew: a record that was lost cannot be subtracted.
local function recount(engine)
  local sums = { slots = 0, prefill = 0, kv = 0 }
  for _, id in ipairs(redis.call("ZRANGE", running_key(engine), 0, -1)) do
    local entry = redis.call("HMGET", request_key(id), "answers", "prefill", "kv")
    sums.slots = sums.slots + (tonumber(entry[1]) or 0)
    sums.prefill = sums.prefill + (tonumber(entry[2]) or 0)
    sums.kv = sums.kv + (tonumber(entry[3]) or 0)
  end
  redis.call("HSET", live_key(engine), "slots", sums.slots, "prefill", sums.prefill, "kv", sums.kv)
end

-- A foreign Redis that evicts keys: there is nothing to settle, but the slot goes on.
local function vacate(id, engine)
  redis.call("ZREM", running_key(engine), id)
  redis.call("ZREM", prefix .. "revocable:" .. engine, id)
  redis.call("ZREM", prefix .. "pausable:" .. engine, id)
  redis.call("SREM", prefix .. "recalled:" .. engine, id)
  recount(engine)
end

for _, engine in ipairs(all_engines) do
  if someone_died then
    forget_queued_of_the_dead(engine)
  end
  local expired = redis.call("ZRANGEBYSCORE", running_key(engine), "-inf", now, "LIMIT", 0, ARGV[2] - #reaped)
  for _, id in ipairs(expired) do
    local entry = read(request_key(id))
    if entry.state then
      abandon(id, engine, entry)
    else
      vacate(id, engine)
    end
    reaped[#reaped + 1] = id
  end
end
for _, engine in ipairs(all_engines) do
  dispatch(engine)
  local told_ms = tonumber(redis.call("HGET", window_key(engine), "told_ms") or 0)
  local is_unused = redis.call("EXISTS", queue_key(engine), running_key(engine)) == 0
  if is_unused and now - told_ms > ENGINE_REMEMBERED_MS then
    redis.call("SREM", prefix .. "engines", engine)
    redis.call("DEL", window_key(engine), live_key(engine), prefix .. "sparse:" .. engine)
  end
end
return reaped
