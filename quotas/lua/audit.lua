-- What the ledger holds, for those who compare it with the usage rows: budgets, and requests that wait or run. Changes
-- nothing.
--   ARGV[2…] flows; those that have requests here are told as well
-- Returns {now in ms, how many replicas are alive, the last event of the settled stream, {budgets}, {requests}}, with
--   budgets   {flow, since_ms, day, its tokens, its requests, month, its tokens, its requests}, "" where nothing is known
--   requests  {id, engine, "queued" or "running", the deadline of its lease in ms, flow, reserved, day, month}, "" likewise

local flows, asked, requests, budgets = {}, {}, {}, {}

local function ask(flow)
  if flow and not asked[flow] then
    asked[flow] = true
    flows[#flows + 1] = flow
  end
end

local function tell(engine, state, key)
  local listed = redis.call("ZRANGE", key, 0, -1, "WITHSCORES")
  for position = 1, #listed, 2 do
    local id, deadline_ms = listed[position], state == "running" and listed[position + 1] or ""
    local entry = redis.call("HMGET", request_key(id), "user", "reserved", "day", "month")
    ask(entry[1])
    requests[#requests + 1] = { id, engine, state, deadline_ms, entry[1] or "", entry[2] or "", entry[3] or "",
      entry[4] or "" }
  end
end

for position = 2, #ARGV do
  ask(ARGV[position])
end
for _, engine in ipairs(all_engines) do
  tell(engine, "queued", queue_key(engine))
  tell(engine, "running", running_key(engine))
end
for _, flow in ipairs(flows) do
  local budget = read(budget_key(flow))
  if budget.month then
    local told = { flow }
    for _, name in ipairs({ "since_ms", "day", "tokens_day", "requests_day", "month", "tokens_month", "requests_month" }) do
      told[#told + 1] = budget[name] or ""
    end
    budgets[#budgets + 1] = told
  end
end
local last = redis.call("XREVRANGE", prefix .. "settled", "+", "-", "COUNT", 1)[1]
return { whole(now), redis.call("ZCOUNT", prefix .. "alive", "(" .. whole(now), "+inf"), last and last[1] or "",
  budgets, requests }
