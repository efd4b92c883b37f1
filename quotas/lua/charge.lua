-- A replica reports on all of its requests at once: it is alive, these stream, those wait.
--   ARGV[2]  replica
--   ARGV[3…] per request: id, output tokens so far, milliseconds from dispatch to the first token (-1: not yet, and for
--            one that waits)
-- Totals, not differences, so that a report sent twice counts once. Renews leases.
-- Returns {id, fact, …}, with the facts
--   "running"  the lease is held; news to one that waits, should its message have been lost
--   "lost"     the lease was reaped: stop the stream
--   "missing"  the ledger has never heard of it: Redis lost its state, enter it again

stay_alive(ARGV[2])
local facts = {}
for position = 3, #ARGV, 3 do
  local id, output_tokens, first_token_ms = ARGV[position], ARGV[position + 1], ARGV[position + 2]
  local entry = redis.call("HMGET", request_key(id), "state", "engine")
  if entry[1] == "running" then
    redis.call("ZADD", running_key(entry[2]), "XX", now + LEASE_MS, id)
    redis.call("HSET", request_key(id), "output_tokens", output_tokens, "first_token_ms", first_token_ms)
    facts[#facts + 1] = id
    facts[#facts + 1] = "running"
  elseif not entry[1] then
    facts[#facts + 1] = id
    facts[#facts + 1] = redis.call("EXISTS", prefix .. "reaped:" .. id) == 1 and "lost" or "missing"
  end
end
return facts
