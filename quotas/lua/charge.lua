-- A replica reports on all of its requests at once: it is alive, these stream, those wait.
--   ARGV[2]  replica
--   ARGV[3…] per request: id, output tokens so far, milliseconds from its arrival to the first token (-1: not yet, for one
--            that waits, and for one that goes on after a pause until it has written more), what it cost so far, 1 if
--            it could be paused now
-- Totals, not differences, so that a report sent twice counts once. Renews leases.
-- Returns {id, fact, …}, with the facts
--   "running"  the lease is held; news to one that waits, should its message have been lost
--   "revoked"  the lease is held and shall end: close the stream
--   "paused"   the lease is held and shall be given up: close the stream, and requeue it. One that says that it cannot be
--              paused, though it was told to, goes on
--   "lost"     the lease was reaped: stop the stream
--   "missing"  the ledger has never heard of it: Redis lost its state, enter it again

stay_alive(ARGV[2])
local facts, moved, costs = {}, {}, {}
for position = 3, #ARGV, 5 do
  local id, output_tokens, first_token_ms = ARGV[position], tonumber(ARGV[position + 1]), ARGV[position + 2]
  local key = request_key(id)
  local entry = redis.call("HMGET", key, "state", "engine", "user", "input_tokens", "cost", "prefill", "recalled", "kv",
    "number")
  local state, engine, flow = entry[1], entry[2], entry[3]
  if state == "running" then
    local cost = tonumber(ARGV[position + 3])
    local grown = tonumber(entry[4]) + output_tokens - tonumber(entry[8])
    redis.call("ZADD", running_key(engine), "XX", now + LEASE_MS, id)
    redis.call("HSET", key, "output_tokens", output_tokens, "cost", cost)
    costs[flow] = (costs[flow] or 0) + cost - tonumber(entry[5])
    if grown > 0 then
      redis.call("HINCRBY", live_key(engine), "kv", grown)
      redis.call("HSET", key, "kv", tonumber(entry[8]) + grown)
    end
    if tonumber(first_token_ms) >= 0 then
      redis.call("HSET", key, "first_token_ms", first_token_ms)
      if entry[6] ~= "0" then
        redis.call("HINCRBY", live_key(engine), "prefill", -tonumber(entry[6]))
        redis.call("HSET", key, "prefill", 0)
        moved[engine] = true
      end
    end
    local fact = entry[7]
    if ARGV[position + 4] ~= "1" then
      redis.call("ZREM", prefix .. "pausable:" .. engine, id)
      if fact == "paused" then
        redis.call("HDEL", key, "recalled")
        redis.call("SREM", prefix .. "recalled:" .. engine, id)
        fact, moved[engine] = nil, true
      end
    elseif not fact and redis.call("ZADD", prefix .. "pausable:" .. engine, "NX", entry[9], id) == 1 then
      moved[engine] = true
    end
    facts[#facts + 1] = id
    facts[#facts + 1] = fact or "running"
  elseif not state then
    facts[#facts + 1] = id
    facts[#facts + 1] = redis.call("EXISTS", reaped_key(id)) == 1 and "lost" or "missing"
  end
end
for flow, cost in pairs(costs) do
  charge_flow(flow, cost)
end
for _, engine in ipairs(all_engines) do
  if moved[engine] then
    dispatch(engine)
  end
end
return facts
