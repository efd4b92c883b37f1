-- The end of a request that held a lease: the slot goes to the next in the queue, and the usage event is written.
--   ARGV[2]  request id
--   ARGV[3]  engine
--   ARGV[4…] names and values of the event
-- The event is written even if the lease is gone (reaped, or lost with Redis' state): tokens were spent all the same.

redis.call("ZREM", running_key(ARGV[3]), ARGV[2])
-- A Redis that crashed may have lost its last second, and with it the news that this one was running.
redis.call("ZREM", queue_key(ARGV[3]), ARGV[2])
redis.call("DEL", request_key(ARGV[2]))
local event = {}
for position = 4, #ARGV do
  event[#event + 1] = ARGV[position]
end
settle(event)
dispatch(ARGV[3])
return 1
