-- A person is removed: whatever runs for them ends, whichever replica serves it. What waits runs first, and is told then:
-- ask again until nothing is left.
--   ARGV[2]  flow
-- Returns how many of its requests run or wait.

local flow, left = ARGV[2], 0
for _, engine in ipairs(all_engines) do
  for _, id in ipairs(redis.call("ZRANGE", running_key(engine), 0, -1)) do
    local entry = redis.call("HMGET", request_key(id), "user", "replica")
    if entry[1] == flow then
      left = left + 1
      redis.call("ZREM", prefix .. "revocable:" .. engine, id)
      redis.call("ZREM", prefix .. "pausable:" .. engine, id)
      redis.call("HSET", request_key(id), "recalled", "revoked")
      tell(entry[2], "revoke:" .. id)
    end
  end
  left = left + redis.call("ZCARD", own_queue_key(engine, flow))
end
return left
