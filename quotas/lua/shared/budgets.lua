-- Budgets: amounts per minute, day and month.
--
-- Windows are those of the calendar, in UTC. A request belongs to the windows in which it entered: there its worst case
-- is reserved, and there, at its end, what it did not use is given back, if they still last. So no window ever holds
-- more than its limit, however many requests run at once, and the moment of the reset can be told.
-- Everybody is counted, also without a limit: one that is set later knows what was used before.
-- So a window holds the tokens of its settled requests and what the others have reserved, and the number of both; what
-- was admitted before `since_ms` is not in it. `wirthforge doctor ledger` compares that with the usage rows.

local MINUTE_MS = 60000
local DAY_MS = 86400000
local MONTH_DAYS = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 }

-- The month of a day since 1970 (counted from January 1970), and the day on which the next one begins.
local function month_of(day)
  local year, month, first = 1970, 0, 0
  while true do
    for number, days in ipairs(MONTH_DAYS) do
      if number == 2 and year % 4 == 0 and (year % 100 ~= 0 or year % 400 == 0) then
        days = 29
      end
      if day < first + days then
        return month, first + days
      end
      first, month = first + days, month + 1
    end
    year = year + 1
  end
end

-- The windows of this moment: {name, which one, when it ends}.
local function windows_now()
  local minute, day = math.floor(now / MINUTE_MS), math.floor(now / DAY_MS)
  local month, next_month = month_of(day)
  return {
    { "minute", minute, (minute + 1) * MINUTE_MS },
    { "day", day, (day + 1) * DAY_MS },
    { "month", month, next_month * DAY_MS },
  }
end

local function budget_key(flow)
  return prefix .. "budget:" .. flow
end

-- What a flow has used, per window; older windows are forgotten.
local function used(flow, windows)
  local stored, amounts = read(budget_key(flow)), {}
  for _, window in ipairs(windows) do
    local name, which = window[1], window[2]
    local is_this = stored[name] == tostring(which)
    amounts[name] = is_this and tonumber(stored["tokens_" .. name]) or 0
    -- nil: the window began before its requests were counted.
    amounts["requests_" .. name] = is_this and tonumber(stored["requests_" .. name]) or not is_this and 0 or nil
  end
  return amounts
end

-- How many output tokens the budget leaves for a request, if it may enter: at the most what it asks for, at the least
-- what it is content with. Else nil, the name of the limit that refuses it longest, and when that one's window ends (0:
-- the limit is too small for this request at any time).
local function affordable(given, amounts, windows)
  local wanted, least = tonumber(given.output_tokens_max), tonumber(given.output_tokens_min)
  local input = tonumber(given.input_tokens)
  local refused, ends_ms
  local requests_max = tonumber(given.requests_per_minute)
  if requests_max and amounts.requests_minute + 1 > requests_max then
    refused, ends_ms = "requests_per_minute", windows[1][3]
  end
  for _, window in ipairs(windows) do
    local limit = tonumber(given["tokens_per_" .. window[1]])
    if limit then
      if input + least > limit then
        return nil, "tokens_per_" .. window[1], 0
      end
      local left = limit - amounts[window[1]] - input
      if left < least then
        refused, ends_ms = "tokens_per_" .. window[1], window[3]
      end
      wanted = math.min(wanted, left)
    end
  end
  if refused then
    return nil, refused, ends_ms
  end
  return wanted
end

-- Count a request and `tokens` for it.
local function reserve(id, flow, tokens, amounts, windows)
  local record, entry = {}, { "reserved", tokens }
  if redis.call("EXISTS", budget_key(flow)) == 0 then
    record = { "since_ms", now }
  end
  for _, window in ipairs(windows) do
    local name, which = window[1], window[2]
    amounts[name] = amounts[name] + tokens
    for _, value in ipairs({ name, which, "tokens_" .. name, amounts[name] }) do
      record[#record + 1] = value
    end
    local requests = "requests_" .. name
    if amounts[requests] then
      amounts[requests] = amounts[requests] + 1
      record[#record + 1] = requests
      record[#record + 1] = amounts[requests]
    end
    entry[#entry + 1] = name
    entry[#entry + 1] = which
  end
  redis.call("HSET", budget_key(flow), unpack(record))
  -- A month and a day: then every window has passed.
  redis.call("PEXPIRE", budget_key(flow), 32 * DAY_MS)
  redis.call("HSET", request_key(id), unpack(entry))
end

-- The request used `tokens` of what was reserved. One that never ran gives its count back as well.
local function give_back(entry, tokens, never_ran)
  if not entry.reserved then
    return
  end
  local key = budget_key(entry.user)
  for _, name in ipairs({ "minute", "day", "month" }) do
    if redis.call("HGET", key, name) == entry[name] then
      redis.call("HINCRBY", key, "tokens_" .. name, tokens - tonumber(entry.reserved))
      if never_ran and redis.call("HEXISTS", key, "requests_" .. name) == 1 then
        redis.call("HINCRBY", key, "requests_" .. name, -1)
      end
    end
  end
end
