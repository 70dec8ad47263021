-- Gives back what tickets took, each once: a ticket whose key is there was paid.
-- KEYS  for each ticket its own key and the buckets it drew from
-- ARGV  how long tickets are remembered in milliseconds; then for each ticket the
--       number of its buckets and what it took from each in microseconds
-- gives how many tickets were paid now
local k, a, paid = 1, 2, 0
while k <= #KEYS do
  local new = redis.call('SET', KEYS[k], '1', 'NX', 'PX', ARGV[1])
  local parts = tonumber(ARGV[a])
  k, a = k + 1, a + 1
  if new then paid = paid + 1 end
  for i = 1, parts do
    local v = new and redis.pcall('GET', KEYS[k])
    if type(v) == 'string' then
      local o, t = string.match(v, '^(%d+) (%d+)$')
      o = o and tonumber(o) - tonumber(ARGV[a])
      if o and o <= 0 then
        redis.call('DEL', KEYS[k])
      elseif o then -- never too short: t is at most 10 s ahead
        redis.call('SET', KEYS[k], string.format('%.0f ', o) .. t, 'PX', string.format('%.0f', math.ceil(o / 1000) + 10000))
      end
    end
    k, a = k + 1, a + 1
  end
end
return {paid}
