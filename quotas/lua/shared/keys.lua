-- What every script begins with. One box is one hash tag, so that all of its keys live in one slot of a cluster.
--
--   KEYS[1]  the prefix of the box, "wf:{box}:"
--   ARGV[1]  now in milliseconds; empty in production, where Redis' own TIME is the clock (tests pass virtual time)
--
-- Keys behind the prefix:
--   engines                set     engines that somebody has told us of
--   window:<engine>        hash    its gates (window.py), and what the outer loop made of them
--   live:<engine>          hash    slots: how many are taken; prefill: prompt tokens without a first token yet; kv: tokens
--                                  that hold memory; lifted: the counter of the last newcomer; token_us, first_ms,
--                                  answer_tokens: what answers took lately; reserve_credit, withheld, reserve_ms: what
--                                  keeping slots for others may still cost
--   sequence               number  arrival order
--   queue:<engine>         zset    request -> arrival number, of everybody
--   own:<engine>:<flow>    zset    the same, of one flow; those that may be stopped come after those that may not
--   ranking:<engine>       zset    flow -> served, of the flows that wait here and may run
--   running:<engine>       zset    request -> deadline of its lease, ms
--   revocable:<engine>     zset    request -> order of dispatch, of leases that may be taken away
--   pausable:<engine>      zset    request -> arrival number, of leases whose answer can go on later
--   recalled:<engine>      set     requests that were told to give up their slot
--   sparse:<engine>        zset    flow -> when it last came as a sparse flow, ms
--   pins:<place>           hash    per slot inside an engine whose prompt it holds: <slot>:salt, :request, :order, :reads;
--                                  loose:<request>: one that may land anywhere; run: the Redis that knows all this
--   flow:<flow>            hash    served:<engine>, fresh:<engine>, spent, spent_turn, weight, in_flight_max, answer_tokens
--   holds:<flow>           set     its running requests, on all engines
--   budget:<flow>          hash    what was used in this minute, day and month, by how many requests, and since when that
--                                  is counted: Redis may have lost what was before
--   request:<id>           hash    the entry, its state (queued or running), what was charged, and how often and how long
--                                  it was paused; one that was is queued with `pauses` above 0
--   reaped:<id>            hash    the lease was taken away, and this was settled for it; remembered for a while, so that
--                                  its holder learns of it, and settles what it says instead
--   turn                   number  the highest counter that was ever dispatched, on any engine
--   policy_version         string  changes with every change of a quota
--   cache_key              string  makes the salts that keep prompt caches apart
--   alive                  zset    replica -> until when it counts as alive, ms
--   go:<replica>           list    news for that replica: "run:<id>", "revoke:<id>", "pause:<id>"
--   reaped_ms              number  when leases were last looked at
--   settled                stream  one event for every request that held a lease
--   unreadable             stream  events that no usage row could be made of, and why; kept for people to look at

local LEASE_MS = 5000
local ALIVE_MS = 5000
local REAPED_REMEMBERED_S = 86400
local GO_REMEMBERED_S = 60
-- A back-stop against a database that is away for weeks, at about 300 bytes an event.
local SETTLED_LENGTH_MAX = 1000000

local prefix = KEYS[1]

local function now_ms()
  if ARGV[1] ~= "" then
    return tonumber(ARGV[1])
  end
  local time = redis.call("TIME")
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

local now = now_ms()

local function request_key(id)
  return prefix .. "request:" .. id
end

local function reaped_key(id)
  return prefix .. "reaped:" .. id
end

local function queue_key(engine)
  return prefix .. "queue:" .. engine
end

local function own_queue_key(engine, flow)
  return prefix .. "own:" .. engine .. ":" .. flow
end

local function ranking_key(engine)
  return prefix .. "ranking:" .. engine
end

local function running_key(engine)
  return prefix .. "running:" .. engine
end

local function window_key(engine)
  return prefix .. "window:" .. engine
end

local function live_key(engine)
  return prefix .. "live:" .. engine
end

local function flow_key(flow)
  return prefix .. "flow:" .. flow
end

local function holds_key(flow)
  return prefix .. "holds:" .. flow
end

-- A hash as a table.
local function read(key)
  local flat, found = redis.call("HGETALL", key), {}
  for position = 1, #flat, 2 do
    found[flat[position]] = flat[position + 1]
  end
  return found
end

-- Arguments from `first` on, which are names and values, as a table.
local function named(first)
  local given = {}
  for position = first, #ARGV, 2 do
    given[ARGV[position]] = ARGV[position + 1]
  end
  return given
end

-- In one order, so that the same steps lead to the same state.
local function read_engines()
  local engines = redis.call("SMEMBERS", prefix .. "engines")
  table.sort(engines)
  return engines
end

local all_engines = read_engines()

local function stay_alive(replica)
  redis.call("ZADD", prefix .. "alive", now + ALIVE_MS, replica)
end

local function alive_until_ms(replica)
  return tonumber(redis.call("ZSCORE", prefix .. "alive", replica) or 0)
end

local function is_alive(replica)
  return alive_until_ms(replica) > now
end

local function tell(replica, news)
  redis.call("RPUSH", prefix .. "go:" .. replica, news)
  redis.call("EXPIRE", prefix .. "go:" .. replica, GO_REMEMBERED_S)
end

-- `fields` is a flat list of names and values: the usage row to be.
local function settle(fields)
  redis.call("XADD", prefix .. "settled", "MAXLEN", "~", SETTLED_LENGTH_MAX, "*", unpack(fields))
end
