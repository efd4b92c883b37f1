-- Turns: who runs next, and whether the engine can take it.
--
-- The head of the poorest flow is next. If it does not fit, nobody is: to skip it would let cheap requests pass dear
-- ones, and weights would mean nothing. What an engine can take is its window, three gates:
--   slots    answers at a time; some are kept for sparse flows, as long as any came lately beside the one in question
--   prefill  prompt tokens whose first token has not come: keeps the engine's own queue empty. One is always allowed,
--            and sparse flows are free of it
--   kv       tokens that hold memory. A request counts from the start with its prompt and half of the flow's usual
--            answer, which is what answers hold on average, and with more as it grows. Sparse flows may fill the pool; the
--            others stop a little before
-- A gate of 0 is open. A sparse flow that does not fit takes the place of the richest flow's youngest revocable lease.

-- How long slots are kept after a sparse flow was last seen.
local SPARSE_REMEMBERED_MS = 600000
local KV_PERCENT_MAX = 95
-- What a running answer may have grown since its last report.
local UNREPORTED_TOKENS = 8

-- What the outer loop has taken away holds as long as it goes on looking.
local TRIM_REMEMBERED_MS = 60000

local function slots_of(window)
  local slots = tonumber(window.slots) or 0
  if now - (tonumber(window.trimmed_ms) or 0) > TRIM_REMEMBERED_MS then
    return slots
  end
  return math.min(slots, tonumber(window.trimmed_slots) or slots)
end

-- Whether another flow than this one came as a sparse one lately and still is, or a large engine keeps its few slots
-- always.
local function guest_expected(engine, flow, window)
  if window.is_reserve_standing == "1" then
    return true
  end
  local since = now - SPARSE_REMEMBERED_MS + 1
  for _, seen in ipairs(redis.call("ZRANGEBYSCORE", prefix .. "sparse:" .. engine, since, "+inf")) do
    if seen ~= flow and is_sparse(seen, engine) then
      return true
    end
  end
  return false
end

-- How many slots a request of this flow has to leave to sparse flows. Those that are sparse leave each other one: who sends
-- a batch after each pause must not hold all of them.
local function kept_slots(engine, flow, window, sparse)
  local reserved = math.max(math.min(tonumber(window.reserved_slots) or 0, slots_of(window) - 1), 0)
  if sparse then
    reserved = redis.call("SCARD", holds_key(flow)) < reserved and 0 or math.min(reserved, 1)
  end
  return reserved > 0 and guest_expected(engine, flow, window) and reserved or 0
end

local function kv_need(engine, entry, window)
  local granted = math.max(tonumber(entry.granted) or 0, 0)
  if window.books_whole_answers == "1" then
    return entry.input_tokens + granted
  end
  local usual = redis.call("HGET", flow_key(entry.user), "answer_tokens")
    or redis.call("HGET", live_key(engine), "answer_tokens") or window.answer_tokens
  return entry.input_tokens + math.min(math.floor((tonumber(usual) or 0) / 2) * entry.answers, granted)
end

-- Which gate is closed for this request, or nil.
local function closed_gate(engine, entry, window, sparse)
  local running = redis.call("ZCARD", running_key(engine))
  local live = read(live_key(engine))
  local left = slots_of(window) - kept_slots(engine, entry.user, window, sparse) - (tonumber(live.slots) or 0)
  -- One that asks for more answers than there are slots is served alone.
  if left < 1 or (running > 0 and left < tonumber(entry.answers)) then
    return "slots"
  end
  if running == 0 then
    return nil
  end
  local prefill_max, prefill = tonumber(window.prefill_tokens_max) or 0, tonumber(live.prefill) or 0
  if not sparse and prefill_max > 0 and prefill > 0 and prefill + entry.input_tokens > prefill_max then
    return "prefill"
  end
  local kv_max = math.floor((tonumber(window.kv_tokens) or 0) * (sparse and 100 or KV_PERCENT_MAX) / 100)
  if kv_max > 0 then
    local unreported = UNREPORTED_TOKENS * (running + 1)
    if (tonumber(live.kv) or 0) + kv_need(engine, entry, window) + unreported > kv_max then
      return "kv"
    end
  end
  return nil
end

local function start(id, engine, entry, window)
  local flow = entry.user
  local kv = kv_need(engine, entry, window)
  -- No longer than its replica is known to live: one that died while this was queued must not keep the slot twice as long.
  local deadline_ms = math.min(now + LEASE_MS, alive_until_ms(entry.replica))
  redis.call("HSET", request_key(id), "state", "running", "dispatched_ms", now,
    "cost", entry.prompt_cost, "prefill", entry.input_tokens, "kv", kv)
  redis.call("HINCRBY", live_key(engine), "slots", entry.answers)
  redis.call("HINCRBY", live_key(engine), "prefill", entry.input_tokens)
  redis.call("HINCRBY", live_key(engine), "kv", kv)
  redis.call("ZADD", running_key(engine), deadline_ms, id)
  redis.call("SADD", holds_key(flow), id)
  if entry.revocable == "1" then
    redis.call("ZADD", prefix .. "revocable:" .. engine, redis.call("INCR", prefix .. "sequence"), id)
  end
  leave_queue(id, engine, flow)
  local served = served_of(flow, engine)
  if served > turn() then
    redis.call("SET", prefix .. "turn", whole(served))
  end
  charge_flow(flow, tonumber(entry.prompt_cost))
  rank(flow)
end

-- A running request leaves its slot; its flow may be allowed to run another.
local function release(id, engine, entry)
  redis.call("ZREM", running_key(engine), id)
  redis.call("ZREM", prefix .. "revocable:" .. engine, id)
  redis.call("SREM", prefix .. "revoked:" .. engine, id)
  redis.call("SREM", holds_key(entry.user), id)
  redis.call("HINCRBY", live_key(engine), "slots", 0 - tonumber(entry.answers))
  redis.call("HINCRBY", live_key(engine), "prefill", 0 - (tonumber(entry.prefill) or 0))
  redis.call("HINCRBY", live_key(engine), "kv", 0 - (tonumber(entry.kv) or 0))
end

-- A queued request goes, and uses nothing.
local function drop(id, engine, entry)
  leave_queue(id, engine, entry.user)
  redis.call("DEL", request_key(id))
  give_back(entry, 0, true)
  rank(entry.user)
  rest(entry.user)
end

-- Tell the holder of the richest flow's youngest revocable lease to end it; one at a time.
local function revoke(engine)
  if redis.call("SCARD", prefix .. "revoked:" .. engine) > 0 then
    return
  end
  local chosen, richest
  for _, id in ipairs(redis.call("ZREVRANGE", prefix .. "revocable:" .. engine, 0, -1)) do
    local served = served_of(redis.call("HGET", request_key(id), "user"), engine)
    if not richest or served > richest then
      chosen, richest = id, served
    end
  end
  if chosen then
    redis.call("ZREM", prefix .. "revocable:" .. engine, chosen)
    redis.call("SADD", prefix .. "revoked:" .. engine, chosen)
    redis.call("HSET", request_key(chosen), "revoked", 1)
    tell(redis.call("HGET", request_key(chosen), "replica"), "revoke:" .. chosen)
  end
end

-- Let heads run while they fit, and tell their replicas. Requests whose replica is gone are dropped, since nobody would
-- take the answer. `caller` is the request of the script itself, whose reply tells it.
local function dispatch(engine, caller)
  local window = read(window_key(engine))
  while true do
    local flow = redis.call("ZRANGE", ranking_key(engine), 0, 0)[1]
    if not flow then
      return
    end
    local id = head_of(flow, engine)
    local entry = id and read(request_key(id)) or {}
    if not id then
      redis.call("ZREM", ranking_key(engine), flow)
    elseif entry.replica and is_alive(entry.replica) then
      local sparse = entry.revocable ~= "1" and is_sparse(flow, engine)
      local gate = closed_gate(engine, entry, window, sparse)
      if gate then
        if sparse then
          revoke(engine)
        end
        return
      end
      start(id, engine, entry, window)
      if id ~= caller then
        tell(entry.replica, "run:" .. id)
      end
    else
      entry.user = flow
      drop(id, engine, entry)
    end
  end
end

-- After a flow's request has ended: its slot is free, and so may be its place under its own limit, on any engine.
local function dispatch_after(engine, flow)
  rank(flow)
  rest(flow)
  dispatch(engine)
  for _, other in ipairs(all_engines) do
    if other ~= engine and redis.call("ZSCORE", ranking_key(other), flow) then
      dispatch(other)
    end
  end
end
