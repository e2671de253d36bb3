"""A second load generator, wrk, for the rows that are faster than one written in Python."""

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from bench.gateway.answers import MESSAGE_STOP
from bench.gateway.gateways import Running
from bench.gateway.load import Script
from bench.gateway.workloads import Workload

_RATE = re.compile(r"^Requests/sec:\s+([\d.]+)", re.MULTILINE)
_PERCENTILE = re.compile(r"^\s+(50|99)%\s+([\d.]+)(us|ms|s)", re.MULTILINE)
_FAULTS = re.compile(r"Socket errors:.*|Non-2xx or 3xx responses: \d+")
_BAD = re.compile(r"^bad (\d+)", re.MULTILINE)
_MILLISECONDS = {"us": 0.001, "ms": 1.0, "s": 1000.0}

# wrk runs one Lua state per thread; `done` runs in another, so the count travels through the thread's table.
_LUA = """\
local file = io.open("{request}", "rb")
local whole = file:read("*a")
file:close()
local threads = {{}}
bad = 0
function setup(thread) table.insert(threads, thread) end
function request() return whole end
function response(status, headers, body)
  if status ~= 200 or not string.find(body, "{closing}", -64, true) then bad = bad + 1 end
end
function done(summary, latency, requests)
  local all = 0
  for _, thread in ipairs(threads) do all = all + thread:get("bad") end
  print("bad " .. all)
end
"""


@dataclass(frozen=True)
class Ceiling:
    """What wrk reached, one session id for all requests. Times in ms."""

    gateway: str
    workload: str
    concurrency: int
    per_second: float
    p50: float
    p99: float
    bad: int
    fault: str


def is_installed() -> bool:
    """Tell whether wrk is there."""
    return shutil.which("wrk") is not None


def measure(gateway: Running, workload: Workload, concurrency: int, seconds: float, place: Path) -> Ceiling:
    """Load a gateway with one repeated request, on this process's core."""
    head, body = Script(workload, f"127.0.0.1:{gateway.port}", gateway.headers).requests[0]
    (place / "request").write_bytes(head + b"00000000-0000-4000-8000-000000000000\r\n\r\n" + body)
    closing = MESSAGE_STOP.split(b"\n")[0].decode().removeprefix("event: ")
    (place / "script.lua").write_text(_LUA.format(request=place / "request", closing=closing))
    command = [
        "wrk",
        "-t1",
        f"-c{concurrency}",
        f"-d{max(1, round(seconds))}s",
        "--latency",
        "--timeout",
        "10s",
    ]
    command += ["-s", str(place / "script.lua"), f"http://127.0.0.1:{gateway.port}/"]
    out = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds + 30).stdout
    rate, bad = _RATE.search(out), _BAD.search(out)
    times = {name: float(value) * _MILLISECONDS[unit] for name, value, unit in _PERCENTILE.findall(out)}
    faults = "; ".join(_FAULTS.findall(out))
    return Ceiling(
        gateway.name,
        workload.name,
        concurrency,
        float(rate[1]) if rate else 0.0,
        times.get("50", 0.0),
        times.get("99", 0.0),
        int(bad[1]) if bad else -1,
        faults if rate else faults or "wrk told no rate",
    )
