-- What answers took lately: moving averages, for the estimate of waiting times and of the memory that answers will need.

local function moved(mean, value)
  mean = tonumber(mean)
  return whole(mean and (mean * 7 + value) / 8 or value)
end

-- A request of this flow was completed with `tokens`; times are those of its event, in ms from its arrival.
local function learn(engine, flow, event)
  local tokens, first_ms = tonumber(event.output_tokens), tonumber(event.first_token_ms or -1)
  local live = redis.call("HMGET", live_key(engine), "token_us", "first_ms", "answer_tokens")
  if tokens <= 0 or first_ms < 0 then
    return
  end
  local streamed_ms = tonumber(event.total_ms) - first_ms - (tonumber(event.paused_ms) or 0)
  redis.call("HSET", live_key(engine), "answer_tokens", moved(live[3], tokens),
    "first_ms", moved(live[2], math.max(first_ms - tonumber(event.queue_ms), 0)),
    "token_us", moved(live[1], math.max(streamed_ms, 0) * 1000 / tokens))
  redis.call("HSET", flow_key(flow), "answer_tokens",
    moved(redis.call("HGET", flow_key(flow), "answer_tokens"), tokens))
end
