-- Charges fixed windows: all of them, or none if one that is not shadow does not fit.
-- Who is refused writes nothing. A counter is "used end", end in Unix microseconds.
-- KEYS  the counters; one may occur twice
-- ARGV  the time in microseconds, or '' for the server's; then for each key
--       limit, period in microseconds, hits, 1 if shadow
-- gives the time, 1 if charged, then for each key: used before, end, 1 if over, 1 if charged
local now
if ARGV[1] == '' then
  local t = redis.call('TIME')
  now = t[1] * 1000000 + t[2]
else
  now = tonumber(ARGV[1])
end

local function write(key, used, stop, period)
  -- A little longer than the window lasts: a clock set back a little finds its keys.
  local ttl = math.ceil((stop - now + math.min(period, 10000000)) / 1000)
  redis.call('SET', key, string.format('%.0f %.0f', used, stop), 'PX', string.format('%.0f', ttl))
end

local used, stop, over, pending = {}, {}, {}, {}
local ok = 1
for i, key in ipairs(KEYS) do
  local limit, period, hits = tonumber(ARGV[4*i-2]), tonumber(ARGV[4*i-1]), tonumber(ARGV[4*i])
  used[i], stop[i] = 0, now + period
  local v = redis.pcall('GET', key)
  if type(v) == 'string' then -- what is no counter of ours is overwritten
    local u, e = string.match(v, '^(%d+) (%d+)$')
    u, e = tonumber(u), tonumber(e)
    if u and e > now then
      if e > stop[i] then -- the clock was set back
        write(key, u, stop[i], period)
        e = stop[i]
      end
      used[i], stop[i] = u, e
    end
  end
  local p = (pending[key] or 0) + hits
  if used[i] + p > limit then
    over[i] = 1
    if ARGV[4*i+1] ~= '1' then ok = 0 end
  else
    over[i] = 0
    pending[key] = p
  end
end

local out, current = {now, ok}, {}
for i, key in ipairs(KEYS) do
  local hits, taken = tonumber(ARGV[4*i]), 0
  if ok == 1 and over[i] == 0 and hits > 0 then
    used[i] = current[key] or used[i] -- with what an earlier charge of this call took
    current[key] = used[i] + hits
    write(key, current[key], stop[i], tonumber(ARGV[4*i-1]))
    taken = 1
  end
  out[#out+1], out[#out+2], out[#out+3], out[#out+4] = used[i], stop[i], over[i], taken
end
return out
