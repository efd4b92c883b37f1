-- What every script begins with. One box is one hash tag, so that all of its keys live in one slot of a cluster.
--
--   KEYS[1]  the prefix of the box, "wf:{box}:"
--   ARGV[1]  now in milliseconds; empty in production, where Redis' own TIME is the clock (tests pass virtual time)
--
-- Keys behind the prefix:
--   windows            hash    engine -> how many requests it takes at a time
--   sequence           number  arrival order
--   queue:<engine>     zset    request -> arrival number
--   running:<engine>   zset    request -> deadline of its lease, ms
--   request:<id>       hash    the entry, its state (queued or running) and what was charged
--   reaped:<id>        string  the lease was taken away; remembered for a while, so that its holder learns of it
--   alive              zset    replica -> until when it counts as alive, ms
--   go:<replica>       list    requests of that replica that may run
--   reaped_ms          number  when leases were last looked at
--   settled            stream  one event for every request that held a lease

local LEASE_MS = 5000
local ALIVE_MS = 5000
local REAPED_REMEMBERED_S = 600
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

local function queue_key(engine)
  return prefix .. "queue:" .. engine
end

local function running_key(engine)
  return prefix .. "running:" .. engine
end

local function stay_alive(replica)
  redis.call("ZADD", prefix .. "alive", now + ALIVE_MS, replica)
end

local function is_alive(replica)
  local until_ms = redis.call("ZSCORE", prefix .. "alive", replica)
  return until_ms and tonumber(until_ms) > now
end

local function start(id, engine)
  redis.call("HSET", request_key(id), "state", "running", "dispatched_ms", now)
  redis.call("ZADD", running_key(engine), now + LEASE_MS, id)
end

-- Let the heads of the queue run while the window has room, and tell their replicas. Requests whose replica is gone are
-- dropped, since nobody would take the answer. `caller` is the request of the script itself, whose reply tells it.
local function dispatch(engine, caller)
  local window = tonumber(redis.call("HGET", prefix .. "windows", engine)) or 0
  local free = window - redis.call("ZCARD", running_key(engine))
  while free > 0 do
    local id = redis.call("ZRANGE", queue_key(engine), 0, 0)[1]
    if not id then
      return
    end
    redis.call("ZREM", queue_key(engine), id)
    local replica = redis.call("HGET", request_key(id), "replica")
    if replica and is_alive(replica) then
      start(id, engine)
      free = free - 1
      if id ~= caller then
        redis.call("RPUSH", prefix .. "go:" .. replica, id)
        redis.call("EXPIRE", prefix .. "go:" .. replica, GO_REMEMBERED_S)
      end
    else
      redis.call("DEL", request_key(id))
    end
  end
end

-- `fields` is a flat list of names and values: the usage row to be.
local function settle(fields)
  redis.call("XADD", prefix .. "settled", "MAXLEN", "~", SETTLED_LENGTH_MAX, "*", unpack(fields))
end
