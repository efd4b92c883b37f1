-- What there is, for those who tell people where they stand. Changes nothing.
--   ARGV[2]  how many requests to list per engine and state at the most
-- Returns per engine {name, slots, length of the queue, number running, token_us, first_ms, answer_tokens, {running},
-- {flows}, {queued}}, with
--   running  {id, flow, model, output tokens so far, granted}
--   queued   {id, flow, model, cost of the prompt, granted, 1 if its flow is in the ranking}, by arrival
--   flows    {flow, score, weight, answer_tokens} of those that run or wait here

local count_max = tonumber(ARGV[2])
local view = {}
for _, engine in ipairs(all_engines) do
  local running, queued, flows, seen = {}, {}, {}, {}
  local function see(flow)
    if flow and not seen[flow] then
      seen[flow] = true
      local about = redis.call("HMGET", flow_key(flow), "weight", "answer_tokens")
      flows[#flows + 1] = { flow, whole(score_of(flow, engine)), about[1] or "", about[2] or "" }
    end
  end
  for _, id in ipairs(redis.call("ZRANGE", running_key(engine), 0, count_max - 1)) do
    local entry = redis.call("HMGET", request_key(id), "user", "model", "output_tokens", "granted")
    running[#running + 1] = { id, unpack(entry) }
    see(entry[1])
  end
  for _, id in ipairs(redis.call("ZRANGE", queue_key(engine), 0, count_max - 1)) do
    local entry = redis.call("HMGET", request_key(id), "user", "model", "prompt_cost", "granted")
    local is_ranked = redis.call("ZSCORE", ranking_key(engine), entry[1]) and 1 or 0
    queued[#queued + 1] = { id, entry[1], entry[2], entry[3], entry[4], is_ranked }
    see(entry[1])
  end
  local lately = redis.call("HMGET", live_key(engine), "token_us", "first_ms", "answer_tokens")
  view[#view + 1] = { engine, slots_of(read(window_key(engine))), redis.call("ZCARD", queue_key(engine)),
    redis.call("ZCARD", running_key(engine)), lately[1] or "0", lately[2] or "0", lately[3] or "0",
    running, flows, queued }
end
return view
