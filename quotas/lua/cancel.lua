-- The client left before the request began: it uses nothing and leaves no event. Its turn may have come in this very
-- moment; then the slot goes on to the next.
--   ARGV[2]  request id
--   ARGV[3]  engine

redis.call("ZREM", queue_key(ARGV[3]), ARGV[2])
redis.call("ZREM", running_key(ARGV[3]), ARGV[2])
redis.call("DEL", request_key(ARGV[2]))
dispatch(ARGV[3])
return 1
