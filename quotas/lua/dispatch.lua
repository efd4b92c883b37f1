-- The window of an engine is set (ARGV[3] slots), and whoever fits runs.
--   ARGV[2]  engine

redis.call("HSET", prefix .. "windows", ARGV[2], ARGV[3])
dispatch(ARGV[2])
return redis.call("ZCARD", queue_key(ARGV[2]))
