-- An engine's window is set, and whoever fits runs.
--   ARGV[2]  engine
--   ARGV[3…] names and values of the window
-- Returns how many still wait.

redis.call("SADD", prefix .. "engines", ARGV[2])
local quantum = quantum_of(ARGV[2])
redis.call("HSET", window_key(ARGV[2]), "told_ms", now, unpack(ARGV, 3))
all_engines = read_engines()
if quantum_of(ARGV[2]) ~= quantum then
  for _, flow in ipairs(redis.call("ZRANGE", ranking_key(ARGV[2]), 0, -1)) do
    redis.call("ZADD", ranking_key(ARGV[2]), score_of(flow, ARGV[2]), flow)
  end
end
dispatch(ARGV[2])
return redis.call("ZCARD", queue_key(ARGV[2]))
