-- What a flow has used of its budgets. Changes nothing.
--   ARGV[2]  flow
-- Returns {requests this minute, tokens this minute, day, month, ends of minute, day, month in ms from now}.

local windows = windows_now()
local amounts = used(ARGV[2], windows)
return { amounts.requests_minute, amounts.minute, amounts.day, amounts.month,
  whole(windows[1][3] - now), whole(windows[2][3] - now), whole(windows[3][3] - now) }
