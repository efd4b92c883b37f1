-- The outer loop: what an engine says of itself trims its slots. Stale or missing words change nothing.
--   ARGV[2]  engine
--   ARGV[3]  requests that wait inside of the engine
--   ARGV[4]  requests that it has pre-empted since it began
-- Returns the slots that are used now.

local TRIM_EVERY_MS = 5000
-- An engine takes in a little before a slot is free; only more than that is a queue.
local WAITING_MAX = 2
local SLOTS_MIN = 4

local key = window_key(ARGV[2])
local window = read(key)
local slots, most = slots_of(window), tonumber(window.slots) or 0
if not window.slots or now - (tonumber(window.trimmed_ms) or 0) < TRIM_EVERY_MS then
  return slots
end
local waiting, preempted = tonumber(ARGV[3]), tonumber(ARGV[4])
if waiting > WAITING_MAX or preempted > (tonumber(window.preempted) or preempted) then
  slots = math.max(math.floor(slots * 9 / 10), math.min(SLOTS_MIN, most))
elseif waiting == 0 and redis.call("EXISTS", queue_key(ARGV[2])) == 1 then
  slots = math.min(slots + math.max(1, math.floor(slots * 3 / 100)), most)
end
redis.call("HSET", key, "trimmed_slots", slots, "trimmed_ms", now, "preempted", preempted)
dispatch(ARGV[2])
return slots
