-- Recall: somebody gives up a slot for a sparse flow whose head does not fit.
--
-- First a lease that may be ended: of the richest flow, the youngest. Else one whose answer can be paused and go on later:
-- of the richest flow, the one that is cheapest to take up again, since all that it has read and written is read once more.
-- A flow keeps one slot, and gives up the last only to somebody who has none; one that is sparse itself gives way only if
-- it holds two more, or the two would take turns in pausing each other. No answer is paused twice within a second. Which
-- leases can be paused their replicas say (charge.lua). One at a time is told: the next dispatch tells the next.

local PAUSE_APART_MS = 1000

local function richest_revocable(engine)
  local chosen, richest
  for _, id in ipairs(redis.call("ZREVRANGE", prefix .. "revocable:" .. engine, 0, -1)) do
    local served = served_of(redis.call("HGET", request_key(id), "user"), engine)
    if not richest or served > richest then
      chosen, richest = id, served
    end
  end
  return chosen
end

local function cheapest_pausable(engine, guest)
  local held, chosen, richest, least = redis.call("SCARD", holds_key(guest))
  for _, id in ipairs(redis.call("ZREVRANGE", prefix .. "pausable:" .. engine, 0, -1)) do
    local entry = redis.call("HMGET", request_key(id), "user", "input_tokens", "output_tokens", "requeued_ms")
    local flow, tokens = entry[1], tonumber(entry[2]) + tonumber(entry[3])
    local keeps = is_sparse(flow, engine) and held + 1 or math.min(held, 1)
    local is_rested = now - (tonumber(entry[4]) or -PAUSE_APART_MS) >= PAUSE_APART_MS
    if flow ~= guest and is_rested and redis.call("SCARD", holds_key(flow)) > keeps then
      local served = served_of(flow, engine)
      if not richest or served > richest or (served == richest and tokens < least) then
        chosen, richest, least = id, served, tokens
      end
    end
  end
  return chosen
end

local function recall(engine, guest)
  if redis.call("SCARD", prefix .. "recalled:" .. engine) > 0 then
    return
  end
  local chosen, news, fact = richest_revocable(engine), "revoke:", "revoked"
  if not chosen then
    chosen, news, fact = cheapest_pausable(engine, guest), "pause:", "paused"
  end
  if chosen then
    redis.call("ZREM", prefix .. "revocable:" .. engine, chosen)
    redis.call("ZREM", prefix .. "pausable:" .. engine, chosen)
    redis.call("SADD", prefix .. "recalled:" .. engine, chosen)
    redis.call("HSET", request_key(chosen), "recalled", fact)
    tell(redis.call("HGET", request_key(chosen), "replica"), news .. chosen)
  end
end
