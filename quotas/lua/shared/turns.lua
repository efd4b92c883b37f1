-- Turns: who runs next, and whether the engine can take it.
--
-- The head of the poorest flow is next. If it does not fit, nobody is: to skip it would let cheap requests pass dear
-- ones, and weights would mean nothing. What an engine can take is its window, three gates:
--   slots    answers at a time; some are kept for sparse flows, as long as any came lately beside the one in question
--            (reserve.lua)
--   prefill  prompt tokens whose first token has not come: keeps the engine's own queue empty. One is always allowed,
--            and sparse flows are free of it
--   kv       tokens that hold memory. A request counts from the start with its prompt and half of the flow's usual
--            answer, which is what answers hold on average, and with more as it grows. Sparse flows may fill the pool; the
--            others stop a little before
-- A gate of 0 is open. For a sparse flow that does not fit somebody gives up a slot (recall.lua).

local KV_PERCENT_MAX = 95
-- What a running answer may have grown since its last report.
local UNREPORTED_TOKENS = 8

-- Whether it has run before, and waits to go on.
local function was_paused(entry)
  return (tonumber(entry.pauses) or 0) > 0
end

-- What it has to read: its prompt, and if it was paused, what it had written.
local function tokens_to_read(entry)
  return entry.input_tokens + (tonumber(entry.output_tokens) or 0)
end

local function kv_need(engine, entry, window)
  local granted, written = math.max(tonumber(entry.granted) or 0, 0), tonumber(entry.output_tokens) or 0
  if window.books_whole_answers == "1" then
    return entry.input_tokens + granted
  end
  local usual = redis.call("HGET", flow_key(entry.user), "answer_tokens")
    or redis.call("HGET", live_key(engine), "answer_tokens") or window.answer_tokens
  local growing = math.floor((tonumber(usual) or 0) / 2) * entry.answers
  return entry.input_tokens + math.max(math.min(written + growing, granted), written)
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
  if not sparse and prefill_max > 0 and prefill > 0 and prefill + tokens_to_read(entry) > prefill_max then
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
  local flow, kv, reads = entry.user, kv_need(engine, entry, window), tokens_to_read(entry)
  -- No longer than its replica is known to live: one that died while this was queued must not keep the slot twice as long.
  local deadline_ms = math.min(now + LEASE_MS, alive_until_ms(entry.replica))
  redis.call("HSET", request_key(id), "state", "running", "prefill", reads, "kv", kv)
  local is_resumed = was_paused(entry)
  if is_resumed then
    local paused_ms = (tonumber(entry.paused_ms) or 0) + now - entry.requeued_ms
    redis.call("HSET", request_key(id), "paused_ms", whole(paused_ms))
  else
    redis.call("HSET", request_key(id), "dispatched_ms", now, "cost", entry.prompt_cost)
  end
  redis.call("HINCRBY", live_key(engine), "slots", entry.answers)
  redis.call("HINCRBY", live_key(engine), "prefill", reads)
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
  -- Who was paused pays nothing for reading again what the box had read before.
  if not is_resumed then
    charge_flow(flow, tonumber(entry.prompt_cost))
  end
  rank(flow)
end

-- A running request leaves its slot; its flow may be allowed to run another.
local function release(id, engine, entry)
  redis.call("ZREM", running_key(engine), id)
  redis.call("ZREM", prefix .. "revocable:" .. engine, id)
  redis.call("ZREM", prefix .. "pausable:" .. engine, id)
  redis.call("SREM", prefix .. "recalled:" .. engine, id)
  redis.call("SREM", holds_key(entry.user), id)
  redis.call("HINCRBY", live_key(engine), "slots", 0 - tonumber(entry.answers))
  redis.call("HINCRBY", live_key(engine), "prefill", 0 - (tonumber(entry.prefill) or 0))
  redis.call("HINCRBY", live_key(engine), "kv", 0 - (tonumber(entry.kv) or 0))
end

-- A request gives up what it holds: its slot, or its place in the queue.
local function let_go(id, engine, entry)
  if entry.state == "running" then
    release(id, engine, entry)
  else
    leave_queue(id, engine, entry.user)
  end
end

-- What was settled for a request whose lease had been taken away gives way to what is settled for it now: `tokens`, or,
-- where it had entered again since (is_anew), nothing, since then it is counted anew. Returns what it replaces.
local function amend(id, tokens, is_anew)
  local reaped = read(reaped_key(id))
  if reaped.user then
    give_back(reaped, is_anew and 0 or tokens, is_anew)
    redis.call("DEL", reaped_key(id))
  end
  return reaped
end

-- Its replica is gone: what it cost is settled from what was charged.
local function abandon(id, engine, entry)
  local event, paused_ms = { "id", id, "outcome", "abandoned" }, tonumber(entry.paused_ms) or 0
  if entry.state == "queued" then
    paused_ms = paused_ms + now - entry.requeued_ms
  end
  entry.paused_ms = nil
  for name, value in pairs(entry) do
    event[#event + 1] = name
    event[#event + 1] = value
  end
  local dispatched_ms = entry.dispatched_ms or entry.requeued_ms
  for name, value in pairs({ queue_ms = dispatched_ms - entry.enqueued_ms, total_ms = now - entry.enqueued_ms,
    paused_ms = paused_ms }) do
    event[#event + 1] = name
    event[#event + 1] = whole(value)
  end
  settle(event)
  redis.call("DEL", request_key(id))
  local tokens = tonumber(entry.input_tokens) + tonumber(entry.output_tokens)
  amend(id, tokens, true)
  redis.call("HSET", reaped_key(id), "user", entry.user, "enqueued_ms", entry.enqueued_ms, "reserved", tokens,
    "minute", entry.minute, "day", entry.day, "month", entry.month)
  redis.call("EXPIRE", reaped_key(id), REAPED_REMEMBERED_S)
  let_go(id, engine, entry)
  give_back(entry, tokens)
  rank(entry.user)
  rest(entry.user)
end

-- A queued request goes, and uses nothing; unless it has run before.
local function drop(id, engine, entry)
  if was_paused(entry) then
    abandon(id, engine, entry)
    return
  end
  leave_queue(id, engine, entry.user)
  redis.call("DEL", request_key(id))
  give_back(entry, 0, true)
  rank(entry.user)
  rest(entry.user)
end

-- Let heads run while they fit, and tell their replicas. Requests whose replica is gone are dropped, since nobody would
-- take the answer. `caller` is the request of the script itself, whose reply tells it.
local function dispatch(engine, caller)
  local window = read(window_key(engine))
  settle_reserve(engine, window)
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
          recall(engine, flow)
        end
        withhold(engine, gate, entry, window)
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
local function dispatch_after(engine, flow, caller)
  rank(flow)
  rest(flow)
  dispatch(engine, caller)
  for _, other in ipairs(all_engines) do
    if other ~= engine and redis.call("ZSCORE", ranking_key(other), flow) then
      dispatch(other, caller)
    end
  end
end
