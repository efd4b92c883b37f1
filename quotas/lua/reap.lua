-- Leases that nobody renewed are taken back, from all engines; what they cost is settled from what was charged. Dead
-- replicas are forgotten. Any replica may call this, as often as it likes.
--   ARGV[2]  how many leases to take at the most
-- Returns the reaped ids.
--
-- Replicas reap every second. When nobody has for half a lease, Redis was away, or every replica was: nobody could renew
-- either. Then every lease gets one more life before it is judged. (Only half: the reaper may be back before those that
-- renew, and after a whole lease it would find them expired.)

local last_ms = tonumber(redis.call("GET", prefix .. "reaped_ms") or 0)
redis.call("SET", prefix .. "reaped_ms", now)
local engines = redis.call("HKEYS", prefix .. "windows")
local reaped = {}

if now - last_ms >= LEASE_MS / 2 then
  for _, engine in ipairs(engines) do
    for _, id in ipairs(redis.call("ZRANGEBYSCORE", running_key(engine), "-inf", now)) do
      redis.call("ZADD", running_key(engine), now + LEASE_MS, id)
    end
  end
  return reaped
end

for _, replica in ipairs(redis.call("ZRANGEBYSCORE", prefix .. "alive", "-inf", now)) do
  redis.call("ZREM", prefix .. "alive", replica)
  redis.call("DEL", prefix .. "go:" .. replica)
end

for _, engine in ipairs(engines) do
  local expired = redis.call("ZRANGEBYSCORE", running_key(engine), "-inf", now, "LIMIT", 0, ARGV[2] - #reaped)
  for _, id in ipairs(expired) do
    local entry = redis.call("HGETALL", request_key(id))
    local event, known = { "id", id, "outcome", "abandoned" }, {}
    for position = 1, #entry, 2 do
      known[entry[position]] = entry[position + 1]
      event[#event + 1] = entry[position]
      event[#event + 1] = entry[position + 1]
    end
    if known.dispatched_ms then
      event[#event + 1] = "queue_ms"
      event[#event + 1] = known.dispatched_ms - known.enqueued_ms
      event[#event + 1] = "total_ms"
      event[#event + 1] = now - known.enqueued_ms
      settle(event)
    end
    redis.call("ZREM", running_key(engine), id)
    redis.call("DEL", request_key(id))
    redis.call("SET", prefix .. "reaped:" .. id, "1", "EX", REAPED_REMEMBERED_S)
    reaped[#reaped + 1] = id
  end
  dispatch(engine)
end
return reaped
