-- A request enters.
--   ARGV[2]  request id          ARGV[5]  longest queue of the engine
--   ARGV[3]  engine              ARGV[6]  "queued", or "running" for a stream that outlived the loss of Redis' state
--                                         state, or "paused" for one that was paused then
--   ARGV[4]  replica             ARGV[7]  the version of the quotas that the limits were read under
--   ARGV[8…] names and values of the entry and of its limits
-- Returns {state, limit, its end in ms from now, output tokens granted (-1: refused), and of the budget
-- requests this minute, tokens this minute, day, month, ends of minute, day, month in ms from now}. The state is
--   "running" or "queued"
--   "stale"    the quotas have changed: read them again
--   "full"     the engine's queue is full (`limit` tells its length), and this flow has its part in that
--   "crowded"  this flow's queue is full (likewise)
--   "limited"  the named budget does not allow it before it ends; if that is 0, never

local id, engine, replica = ARGV[2], ARGV[3], ARGV[4]
local given = named(8)
local flow = given.user
local windows = windows_now()

local function answer(state, limit, ends_ms, granted)
  local amounts = used(flow, windows)
  return { state, limit or "", ends_ms and ends_ms > 0 and whole(ends_ms - now) or 0, tonumber(granted) or -1,
    amounts.requests_minute, amounts.minute, amounts.day, amounts.month,
    whole(windows[1][3] - now), whole(windows[2][3] - now), whole(windows[3][3] - now) }
end

stay_alive(replica)

-- Asked again after a lost reply: tell what is, do nothing twice.
local known = redis.call("HMGET", request_key(id), "state", "granted")
if known[1] then
  return answer(known[1], nil, nil, known[2])
end

local amounts = used(flow, windows)
local granted = tonumber(given.output_tokens_max)
if ARGV[6] == "queued" then
  if ARGV[7] ~= (redis.call("GET", prefix .. "policy_version") or "") then
    return answer("stale")
  end
  local length, own_length = redis.call("ZCARD", queue_key(engine)), waiting_of(flow)
  if own_length > 0 and length >= tonumber(ARGV[5]) then
    return answer("full", tostring(length))
  end
  if own_length >= (tonumber(given.queue_length_max) or math.huge) then
    return answer("crowded", tostring(own_length))
  end
  local affords, limit, ends_ms = affordable(given, amounts, windows)
  if not affords then
    return answer("limited", limit, ends_ms)
  end
  granted = affords
end

if redis.call("SADD", prefix .. "engines", engine) == 1 then
  all_engines = read_engines()
end
given.granted, given.replica = granted, replica
redis.call("HSET", request_key(id), "replica", replica, "engine", engine, "state", "queued", "enqueued_ms", now,
  "granted", granted, "output_tokens", 0, unpack(ARGV, 8))
reserve(id, flow, tonumber(given.input_tokens) + granted, amounts, windows)
redis.call("PERSIST", flow_key(flow))
redis.call("HSET", flow_key(flow), "weight", given.weight)
if given.in_flight_max and given.in_flight_max ~= "" then
  redis.call("HSET", flow_key(flow), "in_flight_max", given.in_flight_max)
else
  redis.call("HDEL", flow_key(flow), "in_flight_max")
end

local window = read(window_key(engine))
if ARGV[6] == "paused" then
  redis.call("HSET", request_key(id), "pauses", 1, "requeued_ms", now, "cost", 0)
  join_queue(id, engine, flow, given.revocable == "1", 0)
  rank(flow)
  dispatch(engine, id)
elseif ARGV[6] == "running" then
  start(id, engine, given, window)
else
  recover(flow)
  if given.revocable ~= "1" and is_sparse(flow, engine) then
    redis.call("ZREMRANGEBYSCORE", prefix .. "sparse:" .. engine, "-inf", now - SPARSE_REMEMBERED_MS)
    redis.call("ZADD", prefix .. "sparse:" .. engine, now, flow)
  end
  join_queue(id, engine, flow, given.revocable == "1")
  rank(flow)
  dispatch(engine, id)
end
return answer(redis.call("HGET", request_key(id), "state"), nil, nil, granted)
