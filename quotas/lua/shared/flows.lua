-- Flows and their counters: who has used how much of the box, for its weight.
--
-- `served` grows by cost / weight; the flow with the smallest counter is next (virtual token counter, OSDI 2024). What a
-- flow uses on one engine counts on all of them, since they share the box. A flow that comes to wait for an engine is
-- lifted to those that wait there, so that nobody banks credit by being away: to their smallest counter, or, if nobody
-- waits, to the highest that was dispatched. It gets one cost unit less, so that who has just come goes before who has
-- been served; of several newcomers the first goes first. Because levels differ between engines (a slow engine's users
-- get less), a flow has a counter for each engine: lifted apart, charged together.
-- `spent` is what a flow has used since it was last idle, less a quarter of what one that is served in turn could have
-- used meanwhile: `turn` grows at that pace. While it is below a quantum (the window's sparse_cost_max) the flow is
-- sparse: it is ranked a quantum ahead of its counter, so that who asks now and then is not overtaken while the first of
-- two answers runs. So somebody whose few requests always overlap stays sparse, and who takes a full share is so for a
-- quantum only. The counter itself stays true, so nobody's lead is ever larger. A flow with nothing but revocable
-- requests waiting has no such haste.

-- Counter units for one cost unit at the normal weight. Parts of a unit are lost with every charge.
local UNIT = 1000
local WEIGHT_NORMAL = 100
local FLOW_REMEMBERED_MS = 86400000
-- No request is so dear; keeps numbers exact whatever somebody claims.
local UNITS_MAX = 2 ^ 45
-- The part of a full share that a flow may use all the time and be sparse.
local SPARSE_PART = 4
-- In a flow's own queue, revocable requests come after all others.
local REVOCABLE_LATER = 2 ^ 45

local function whole(number)
  return string.format("%.0f", number)
end

local function served_of(flow, engine)
  return tonumber(redis.call("HGET", flow_key(flow), "served:" .. engine) or 0)
end

local function quantum_of(engine)
  return (tonumber(redis.call("HGET", window_key(engine), "sparse_cost_max")) or 0) * UNIT
end

local function is_sparse(flow, engine)
  return (tonumber(redis.call("HGET", flow_key(flow), "spent")) or 0) < quantum_of(engine)
end

local function turn()
  return tonumber(redis.call("GET", prefix .. "turn") or 0)
end

-- Bring what the flow has spent up to this moment.
local function recover(flow)
  local now_turn, seen = turn(), redis.call("HMGET", flow_key(flow), "spent", "spent_turn")
  local gained = math.floor((now_turn - (tonumber(seen[2]) or now_turn)) / SPARSE_PART)
  if gained ~= 0 or not seen[2] then
    local spent = math.max((tonumber(seen[1]) or 0) - gained, 0)
    redis.call("HSET", flow_key(flow), "spent", whole(spent), "spent_turn", whole(now_turn))
  end
end

local function head_of(flow, engine)
  return redis.call("ZRANGE", own_queue_key(engine, flow), 0, 0)[1]
end

-- Where the flow stands in the ranking, the smallest first.
local function score_of(flow, engine)
  local served, head = served_of(flow, engine), head_of(flow, engine)
  local in_haste = is_sparse(flow, engine) and not (head and redis.call("HGET", request_key(head), "revocable") == "1")
  return served - (in_haste and quantum_of(engine) or 0)
end

-- The flow with the smallest counter among those that wait, and its counter.
local function poorest(engine)
  local least, counter
  for _, flow in ipairs(redis.call("ZRANGE", ranking_key(engine), 0, -1)) do
    local served = served_of(flow, engine)
    if not counter or served < counter then
      least, counter = flow, served
    end
  end
  return least, counter
end

local function lift(flow, engine)
  local least, counter = poorest(engine)
  local level
  if not least then
    level = turn() - UNIT
  elseif redis.call("HGET", flow_key(least), "fresh:" .. engine) then
    level = math.max(counter, tonumber(redis.call("HGET", live_key(engine), "lifted") or 0)) + 1
  else
    level = counter - UNIT
  end
  if served_of(flow, engine) <= level then
    redis.call("HSET", flow_key(flow), "served:" .. engine, whole(level), "fresh:" .. engine, 1)
    redis.call("HSET", live_key(engine), "lifted", whole(level))
  end
end

local function may_run_more(flow)
  local in_flight_max = tonumber(redis.call("HGET", flow_key(flow), "in_flight_max") or "")
  return not in_flight_max or redis.call("SCARD", holds_key(flow)) < in_flight_max
end

-- Bring the rankings in line with the flow's queues and its limit. Whoever enters one is lifted.
local function rank(flow)
  recover(flow)
  local may_run = may_run_more(flow)
  for _, engine in ipairs(all_engines) do
    if not may_run or not head_of(flow, engine) then
      redis.call("ZREM", ranking_key(engine), flow)
    else
      if not redis.call("ZSCORE", ranking_key(engine), flow) then
        lift(flow, engine)
      end
      redis.call("ZADD", ranking_key(engine), score_of(flow, engine), flow)
    end
  end
end

-- Add to what a flow has used; a negative cost takes back.
local function charge_flow(flow, cost)
  if cost == 0 then
    return
  end
  local key = flow_key(flow)
  local weight = tonumber(redis.call("HGET", key, "weight") or WEIGHT_NORMAL)
  local units = math.floor(cost * UNIT * WEIGHT_NORMAL / weight)
  units = whole(math.max(math.min(units, UNITS_MAX), -UNITS_MAX))
  recover(flow)
  redis.call("HINCRBY", key, "spent", units)
  for _, engine in ipairs(all_engines) do
    redis.call("HDEL", key, "fresh:" .. engine)
    redis.call("HINCRBY", key, "served:" .. engine, units)
    redis.call("ZADD", ranking_key(engine), "XX", score_of(flow, engine), flow)
  end
end

local function waiting_of(flow)
  local count = 0
  for _, engine in ipairs(all_engines) do
    count = count + redis.call("ZCARD", own_queue_key(engine, flow))
  end
  return count
end

-- One that has nothing left here begins anew as a sparse flow; one that stays away is forgotten.
local function rest(flow)
  if redis.call("SCARD", holds_key(flow)) == 0 and waiting_of(flow) == 0 then
    redis.call("HSET", flow_key(flow), "spent", 0)
    redis.call("PEXPIRE", flow_key(flow), FLOW_REMEMBERED_MS)
  end
end

-- `number`: its place, for one that was there before.
local function join_queue(id, engine, flow, is_revocable, number)
  number = number or redis.call("INCR", prefix .. "sequence")
  redis.call("HSET", request_key(id), "number", number)
  redis.call("ZADD", queue_key(engine), number, id)
  redis.call("ZADD", own_queue_key(engine, flow), number + (is_revocable and REVOCABLE_LATER or 0), id)
end

local function leave_queue(id, engine, flow)
  redis.call("ZREM", queue_key(engine), id)
  redis.call("ZREM", own_queue_key(engine, flow), id)
end
