-- The prompt of a request is in its slot now: the slot is its person's, unless a loose request (pin.lua) may get there.
--   ARGV[2]  place
--   ARGV[3]  request
--   ARGV[4]  salt
--   ARGV[5]  slot

local key, slot = prefix .. "pins:" .. ARGV[2], ARGV[5]
if redis.call("HGET", key, slot .. ":request") ~= ARGV[3] then
  return 0
end
redis.call("HDEL", key, slot .. ":reads")
for _, field in ipairs(redis.call("HKEYS", key)) do
  if string.find(field, "^loose:") then
    return 0
  end
end
redis.call("HSET", key, slot .. ":salt", ARGV[4])
return 1
