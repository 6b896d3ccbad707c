-- Lends of limits that the nodes of a cluster share. KEYS are accounts. ARGV is the number of nodes, and for each
-- account: kind, two numbers, how much is wanted at most, how much calls wait for, what was used elsewhere.
-- Of a rate ('r') the numbers are the microseconds in which there is one more, and the burst; of a quota ('q') how many
-- there are, and the second at which its window is over.
-- Answers for each account: lent, microseconds until there is one more (where there was less than calls wait for), left,
-- microseconds until all of it is there.
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local nodes = tonumber(ARGV[1])
local answer = {}

-- Near the end of a limit, batches get smaller, so that one node does not sit on what another has calls for.
local function share(free, want, need)
  if free <= need then
    return free
  end
  return math.min(want, math.max(need, math.floor(free / (2 * nodes))))
end

for number, account in ipairs(KEYS) do
  local at = 2 + (number - 1) * 6
  local kind = ARGV[at]
  local first, second = tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
  local want, need, owed = tonumber(ARGV[at + 3]), tonumber(ARGV[at + 4]), tonumber(ARGV[at + 5])
  local lent, wait, left, reset
  if kind == 'r' then
    local full = first * second
    local tat = math.max(tonumber(redis.call('GET', account) or now), now)
    local free = math.max(0, math.floor((full - (tat - now)) / first + 0.000001))
    lent = share(free, want, need)
    if lent > 0 then
      tat = tat + lent * first
      redis.call('SET', account, string.format('%.17g', tat), 'PX', math.ceil((tat - now) / 1000) + 1000)
    end
    left = free - lent
    reset = math.ceil(tat - now)
    wait = -1
    if lent < need then
      wait = math.max(1, math.ceil(tat + first - full - now))
    end
  else
    local used = tonumber(redis.call('GET', account) or 0) + owed
    local free = math.max(0, first - used)
    lent = share(free, want, need)
    if lent + owed ~= 0 then
      redis.call('INCRBY', account, string.format('%.0f', lent + owed))
      redis.call('EXPIREAT', account, second + 3600)
    end
    left = free - lent
    reset = math.max(0, second * 1000000 - now)
    wait = -1
    if lent < need then
      wait = math.max(1, reset)
    end
  end
  answer[#answer + 1] = lent
  answer[#answer + 1] = wait
  answer[#answer + 1] = left
  answer[#answer + 1] = reset
end
return answer
