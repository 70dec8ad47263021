-- Charges GCRA buckets: all of them, or none if one has too little left. Who is
-- refused writes nothing. A bucket is "owed at": microseconds owed, as of Unix
-- microseconds.
-- KEYS  the buckets; one may occur twice
-- ARGV  the time in microseconds, or '' for the server's; then for each key
--       capacity and amount in microseconds
-- gives the first key that refuses longest, or 0, and how long in microseconds
local back = 10000000 -- further back than this, the clock was set
local now
if ARGV[1] == '' then
  local t = redis.call('TIME')
  now = t[1] * 1000000 + t[2]
else
  now = tonumber(ARGV[1])
end

local function write(key, owed, at)
  -- Until the bucket is full, and as long as a clock may lag behind.
  local ttl = math.ceil((at - now + owed + back) / 1000)
  redis.call('SET', key, string.format('%.0f %.0f', owed, at), 'PX', string.format('%.0f', ttl))
end

local owed, at = {}, {}
local refuser, longest = 0, 0
for i, key in ipairs(KEYS) do
  local capacity, amount = tonumber(ARGV[2*i]), tonumber(ARGV[2*i+1])
  if not owed[key] then
    owed[key], at[key] = 0, now
    local v = redis.pcall('GET', key)
    if type(v) == 'string' then -- what is no bucket of ours is overwritten
      local o, t = string.match(v, '^(%d+) (%d+)$')
      o, t = tonumber(o), tonumber(t)
      if o and now >= t then
        owed[key] = math.max(o - (now - t), 0)
      elseif o and t - now > back then
        owed[key] = o
        write(key, o, now)
      elseif o then
        owed[key], at[key] = o, t
      end
    end
  end
  owed[key] = owed[key] + amount
  if owed[key] > capacity then
    local wait = math.min(owed[key] - capacity, capacity)
    if wait > longest then refuser, longest = i, wait end
  end
end
if refuser == 0 then
  for key, o in pairs(owed) do write(key, o, at[key]) end
end
return {refuser, longest}
