-- For wrk: the requests of monitoring at a steady rate, paths in turn, late ones at once.
-- Arguments: requests per second, token, paths. Prints one line of JSON at the end.

local ffi = require("ffi")
ffi.cdef [[
  typedef struct { long seconds, nanoseconds; } instant;
  int clock_gettime(int clock, instant *now);
]]
local CLOCK_MONOTONIC = 1
local clock = ffi.new("instant")
local requests, rate, begin, asked, planned = {}, 0, nil, 0, 0

local function now()
  ffi.C.clock_gettime(CLOCK_MONOTONIC, clock)
  return tonumber(clock.seconds) + tonumber(clock.nanoseconds) / 1e9
end

function init(args)
  rate = tonumber(args[1])
  wrk.headers["X-ZT1-Auth"] = args[2]
  for i = 3, #args do
    requests[i - 2] = wrk.format("GET", args[i])
  end
end

-- Milliseconds until the next request, whichever connection sends it.
function delay()
  begin = begin or now()
  planned = planned + 1
  return math.max(0, math.floor((begin + planned / rate - now()) * 1000 + 0.5))
end

function request()
  asked = asked + 1
  return requests[(asked - 1) % #requests + 1]
end

function done(summary, latency)
  local errors = summary.errors
  print(string.format(
    '{"count": %d, "seconds": %.3f, "failed": %d, "p50": %.3f, "p99": %.3f}',
    summary.requests, summary.duration / 1e6,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout,
    latency:percentile(50) / 1000, latency:percentile(99) / 1000))
end
