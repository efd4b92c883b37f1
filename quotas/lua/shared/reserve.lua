-- The reserve: slots that are kept for sparse flows.
--
-- A free slot is what spares who asks now and then the wait for somebody else's answer, and each costs 1/slots of the
-- throughput while it stands idle. So there are as many as there were different sparse flows lately, at most
-- `reserved_slots`; a lease that can be paused is as good as a free slot (recall.lua) and counts as one. And idling is paid
-- from a credit: it grows with time by `reserve_percent_max` of the engine, for a minute at the most, and falls by every slot
-- that is withheld from somebody who waits. Without credit nothing is kept. Large engines keep their few slots always.

-- How long slots are kept after a sparse flow was last seen.
local SPARSE_REMEMBERED_MS = 600000
local RESERVE_SAVED_MS = 60000
-- What the outer loop has taken away holds as long as it goes on looking.
local TRIM_REMEMBERED_MS = 60000

local function slots_of(window)
  local slots = tonumber(window.slots) or 0
  if now - (tonumber(window.trimmed_ms) or 0) > TRIM_REMEMBERED_MS then
    return slots
  end
  return math.min(slots, tonumber(window.trimmed_slots) or slots)
end

local function is_standing(window)
  return window.is_reserve_standing == "1"
end

-- Bring the credit up to this moment, in hundredths of a slot times milliseconds.
local function settle_reserve(engine, window)
  if is_standing(window) then
    return
  end
  local live = redis.call("HMGET", live_key(engine), "reserve_credit", "withheld", "reserve_ms")
  local growth = slots_of(window) * (tonumber(window.reserve_percent_max) or 0)
  local most = growth * RESERVE_SAVED_MS
  local elapsed = now - (tonumber(live[3]) or now)
  local credit = (tonumber(live[1]) or most) + elapsed * (growth - 100 * (tonumber(live[2]) or 0))
  redis.call("HSET", live_key(engine), "reserve_credit", whole(math.min(credit, most)), "withheld", 0,
    "reserve_ms", whole(now))
end

-- How many other flows than this one came as sparse ones lately and still are.
local function guests_expected(engine, flow)
  local since, count = now - SPARSE_REMEMBERED_MS + 1, 0
  for _, seen in ipairs(redis.call("ZRANGEBYSCORE", prefix .. "sparse:" .. engine, since, "+inf")) do
    if seen ~= flow and is_sparse(seen, engine) then
      count = count + 1
    end
  end
  return count
end

-- How many slots a request of this flow has to leave to sparse flows. Those that are sparse leave each other one: who sends
-- a batch after each pause must not hold all of them.
local function kept_slots(engine, flow, window, sparse)
  local reserved = math.max(math.min(tonumber(window.reserved_slots) or 0, slots_of(window) - 1), 0)
  if sparse then
    reserved = redis.call("SCARD", holds_key(flow)) < reserved and 0 or math.min(reserved, 1)
  end
  if reserved == 0 or is_standing(window) then
    return reserved
  end
  if (tonumber(redis.call("HGET", live_key(engine), "reserve_credit")) or 0) <= 0 then
    return 0
  end
  reserved = reserved - redis.call("ZCARD", prefix .. "pausable:" .. engine)
  return math.max(math.min(reserved, guests_expected(engine, flow)), 0)
end

-- Note how many slots are free and not given to the head that waits.
local function withhold(engine, gate, entry, window)
  local free = slots_of(window) - (tonumber(redis.call("HGET", live_key(engine), "slots")) or 0)
  if gate == "slots" and not is_standing(window) and free >= tonumber(entry.answers) then
    redis.call("HSET", live_key(engine), "withheld", free)
  end
end
