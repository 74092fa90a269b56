-- What all loads share. A load returns nothing: it defines the global functions that wrk calls.
--   setup (main)    gives each thread its number
--   done (main)     prints one line of JSON, which bench/load.py reads

local common = {}
local made = 0

-- Plates of cars: six provinces by twenty letters by five digits, never 00000.
local PROVINCES = { "29", "30", "31", "32", "33", "40" }
local LETTERS = "ABCDEFGHKLMNPSTUVXYZ"
local DIGITS = 99999
local PLATES = #PROVINCES * #LETTERS * DIGITS
-- Shares no factor with PLATES, so that i -> i * STEP % PLATES meets every plate once, in no order that an index likes.
local STEP = 7368787

function setup(thread)
   thread:set("number", made)
   made = made + 1
end

function done(summary, latency, requests)
   local errors = summary.errors
   io.write(string.format(
      '\n{"requests":%d,"seconds":%.6f,"p50_ms":%.3f,"p95_ms":%.3f,"p99_ms":%.3f,' ..
      '"errors":{"connect":%d,"read":%d,"write":%d,"status":%d,"timeout":%d}}\n',
      summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(95) / 1e3,
      latency:percentile(99) / 1e3, errors.connect, errors.read, errors.write, errors.status, errors.timeout))
end

-- In: a file; out: its lines.
function common.lines(path)
   local lines = {}
   for line in io.lines(path) do
      lines[#lines + 1] = line
   end
   return lines
end

-- In: a running number; out: a car's plate that no other number below 12 million has, and the number it was made from.
function common.plate(i)
   local n = i * STEP % PLATES
   local series = math.floor(n / DIGITS)
   local letter = series % #LETTERS + 1
   local digits = n % DIGITS + 1
   return string.format("%s%s-%03d.%02d", PROVINCES[math.floor(series / #LETTERS) + 1], LETTERS:sub(letter, letter),
      math.floor(digits / 100), digits % 100), n
end

-- In: the first number of this burst and the number of threads; out: a function that gives this thread's next number.
function common.counter(first, threads)
   local i = first + number - threads
   return function()
      i = i + threads
      return i
   end
end

return common
