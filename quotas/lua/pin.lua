-- Choose a slot inside an engine for a request, so that nobody reuses what somebody else's prompt left there.
--   ARGV[2]  place: the engine's address, since one engine may have several names
--   ARGV[3]  request
--   ARGV[4]  salt of its person and model; empty where the engine will choose a slot by itself
--   ARGV[5]  slots of the engine
-- Returns {slot, 1 if what the slot holds is this person's own}. A slot that changes hands is nobody's until own.lua
-- says that the new prompt is in it: a request may fail before it gets there.
--
-- Where the engine chooses ({-1, 0}), the request is loose: it may land anywhere, so while it lives, and a little
-- longer, no slot is anybody's own. It has to wait ({-2, 0}) until those that were told to reuse a slot have read it.

local LOOSE_AFTER_MS, REMEMBERED_S = 2000, 86400
local key, request, salt, slots = prefix .. "pins:" .. ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5])

-- A Redis that comes back with what it knew some time ago does not know what slots hold now.
local run = string.match(redis.call("INFO", "server"), "run_id:(%x+)")
if redis.call("HGET", key, "run") ~= run then
  redis.call("DEL", key)
  redis.call("HSET", key, "run", run)
end
redis.call("EXPIRE", key, REMEMBERED_S)

-- One that is paused is in no slot.
local function lives(id)
  return id and redis.call("HGET", request_key(id), "state") == "running"
end

local pins, fields, is_loose = {}, redis.call("HGETALL", key), false
for index = 1, #fields, 2 do
  local field, value = fields[index], fields[index + 1]
  pins[field] = value
  local id = string.match(field, "^loose:(.*)$")
  if id and id ~= request then
    if lives(id) then
      redis.call("HSET", key, field, now)
      is_loose = true
    elseif now - tonumber(value) > LOOSE_AFTER_MS then
      redis.call("HDEL", key, field)
    else
      is_loose = true
    end
  end
end

local chosen, least
for slot = 0, (salt == "" and 0 or slots) - 1 do
  local holder = pins[slot .. ":request"]
  if holder == request or not lives(holder) then
    -- One's own slot, else the one that was used longest ago.
    local rank = pins[slot .. ":salt"] == salt and -1 or tonumber(pins[slot .. ":order"] or 0)
    if not least or rank < least then
      chosen, least = slot, rank
    end
  end
end

if not chosen or is_loose then
  for field in pairs(pins) do
    if string.find(field, ":salt$") then
      redis.call("HDEL", key, field)
      pins[field] = nil
    end
  end
end
if not chosen then
  redis.call("HSET", key, "loose:" .. request, now)
  for field, reader in pairs(pins) do
    if string.find(field, ":reads$") and reader ~= request and lives(reader) then
      return { -2, 0 }
    end
  end
  return { -1, 0 }
end
redis.call("HDEL", key, "loose:" .. request)
local is_own = pins[chosen .. ":salt"] == salt
if is_own then
  redis.call("HSET", key, chosen .. ":reads", request)
else
  redis.call("HDEL", key, chosen .. ":salt", chosen .. ":reads")
end
redis.call("HSET", key, chosen .. ":request", request, chosen .. ":order", redis.call("INCR", prefix .. "sequence"))
return { chosen, is_own and 1 or 0 }
