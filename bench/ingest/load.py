"""wrk, with bodies that take turns."""

import re
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

# Where it stands in a body, 32 digits that were in none before take its place.
PLACEHOLDER = "e1d0" * 8
_RATE = re.compile(r"^Requests/sec:\s+([\d.]+)", re.MULTILINE)
_DONE = re.compile(r"^done (\d+) bad (\d+)", re.MULTILINE)
_PERCENTILE = re.compile(r"^\s+(50|99)%\s+([\d.]+)(us|ms|s)", re.MULTILINE)
_MILLISECONDS = {"us": 0.001, "ms": 1.0, "s": 1000.0}

# wrk runs one Lua state per thread; `done` runs in another, so counts travel through the thread's table.
_LUA = """\
local threads = {{}}
local requests = {{}}
for number = 1, {count} do
  local file = io.open("{folder}/" .. number, "rb")
  local whole, parts, at = file:read("*a"), {{}}, 1
  file:close()
  while true do
    local from, to = string.find(whole, "{placeholder}", at, true)
    table.insert(parts, string.sub(whole, at, from and from - 1))
    if not from then break end
    at = to + 1
  end
  requests[number] = parts
end
math.randomseed({seed})
local function fresh()
  local function part() return math.random(0, 2^31) end
  return string.format("%08x%08x%08x%08x", part(), part(), part(), sent)
end
good, bad, turn, sent = 0, 0, 0, 0
function setup(thread) table.insert(threads, thread) end
function request()
  turn = turn % {count} + 1
  sent = sent + 1
  return table.concat(requests[turn], fresh())
end
function response(status)
  if status >= 200 and status < 300 then good = good + 1 else bad = bad + 1 end
end
function done(summary, latency, requests)
  local all, wrong = 0, 0
  for _, thread in ipairs(threads) do all, wrong = all + thread:get("good"), wrong + thread:get("bad") end
  print("done " .. all .. " bad " .. wrong)
end
"""


@dataclass(frozen=True)
class Visit:
    """What a load came to; times in ms."""

    per_second: float
    good: int
    bad: int
    p50: float
    p99: float


def is_installed() -> bool:
    """Tell whether wrk is there."""
    return shutil.which("wrk") is not None


def load(
    port: int,
    path: str,
    headers: tuple[tuple[str, str], ...],
    bodies: tuple[bytes, ...],
    *,
    connections: int,
    seconds: float,
    core: int,
    place: Path,
) -> Visit:
    """Send bodies in turns over some connections, each waiting for its answer."""
    folder = place / "requests"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for number, body in enumerate(bodies, 1):
        lines = [f"POST {path} HTTP/1.1", f"Host: 127.0.0.1:{port}", f"Content-Length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in headers]
        (folder / str(number)).write_bytes("\r\n".join([*lines, "", ""]).encode() + body)
    script = place / "load.lua"
    script.write_text(
        _LUA.format(count=len(bodies), folder=folder, placeholder=PLACEHOLDER, seed=time.time_ns() % 2**31)
    )
    command = [
        "taskset",
        "--cpu-list",
        str(core),
        "wrk",
        "-t1",
        f"-c{connections}",
        f"-d{seconds:g}s",
        "--latency",
    ]
    command += ["--timeout", "30s", "-s", str(script), f"http://127.0.0.1:{port}/"]
    out = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds + 60).stdout
    rate, done = _RATE.search(out), _DONE.search(out)
    times = {name: float(value) * _MILLISECONDS[unit] for name, value, unit in _PERCENTILE.findall(out)}
    return Visit(
        float(rate[1]) if rate else 0.0,
        int(done[1]) if done else 0,
        int(done[2]) if done else -1,
        times.get("50", 0.0),
        times.get("99", 0.0),
    )
