-- The client left before the request began: it uses nothing and leaves no event. Its turn may have come in this very
-- moment; then the slot goes on to the next.
--   ARGV[2]  request id

local id = ARGV[2]
local entry = read(request_key(id))
local engine = entry.engine
if entry.state == "queued" then
  drop(id, engine, entry)
  dispatch(engine) -- it may have been the head that did not fit
elseif was_paused(entry) then
  abandon(id, engine, entry)
  dispatch_after(engine, entry.user)
elseif entry.state then
  redis.call("DEL", request_key(id))
  release(id, engine, entry)
  charge_flow(entry.user, -tonumber(entry.cost))
  give_back(entry, 0, true)
  dispatch_after(engine, entry.user)
end
return 1
