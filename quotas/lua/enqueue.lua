-- A request enters.
--   ARGV[2]  request id          ARGV[5]  longest queue allowed
--   ARGV[3]  engine              ARGV[6]  "queued", or "running" for a stream that outlived the loss of Redis' state
--   ARGV[4]  replica             ARGV[7…] names and values of the entry
-- Returns {state, number ahead of it}; the state is "running", "queued" or "full".

local id, engine, replica = ARGV[2], ARGV[3], ARGV[4]
stay_alive(replica)

-- Asked again after a lost reply: tell what is, do nothing twice.
local state = redis.call("HGET", request_key(id), "state")
if not state then
  local length = redis.call("ZCARD", queue_key(engine))
  if ARGV[6] == "queued" and length >= tonumber(ARGV[5]) then
    return { "full", length }
  end
  redis.call("HSET", request_key(id), "replica", replica, "engine", engine, "state", "queued",
    "enqueued_ms", now, "output_tokens", 0, unpack(ARGV, 7))
  if ARGV[6] == "running" then
    start(id, engine)
  else
    redis.call("ZADD", queue_key(engine), redis.call("INCR", prefix .. "sequence"), id)
    dispatch(engine, id)
  end
  state = redis.call("HGET", request_key(id), "state")
end
return { state, redis.call("ZRANK", queue_key(engine), id) or 0 }
