"""The service that the fault table deploys: an HTTP/1.1 server that answers with its version and has the fault named in FAULT.

A fault begins with the first request of a user, after health checks and smoke tests. An answer that the fault has spoilt carries
`x-fault`. Started by `bench/faults/run`, from a release's own folder.
"""

import asyncio
import math
import os
import pathlib
import random
import signal
import time

VERSION = pathlib.Path("VERSION").read_text().strip()
FAULT = pathlib.Path("FAULT").read_text().strip()
MEMORY_LIMIT_MB = 160
MEMORY_GROWS_FOR_S = 15
USUAL_LATENCY_S = 0.02
started = time.monotonic()
first_request = None
ballast = []
stopping = asyncio.Event()
open_requests = 0


def usual_latency():
    return random.lognormvariate(math.log(USUAL_LATENCY_S), 0.25)


def current_fault():
    """`both-FILE` is a fault of the world, such as a database that is down: 20% errors of every release, once FILE exists."""
    if not FAULT.startswith("both-"):
        return FAULT
    return "errors-20" if os.path.exists(FAULT.removeprefix("both-")) else "none"


def since_first_request():
    return 0.0 if first_request is None else time.monotonic() - first_request


def is_ready():
    return not (FAULT == "unready" and since_first_request() > 2)


async def answer(path):
    """Status, fault and whether an order was taken; None closes the connection without an answer."""
    global first_request
    if path.startswith("/health"):
        return (200 if is_ready() else 503), None, False
    if first_request is None and path.startswith("/order"):
        first_request = time.monotonic()
    latency, fault, status, order = usual_latency(), None, 200, True
    kind, _, amount = current_fault().partition("-")
    chance = float(amount) / 100 if amount.replace(".", "").isdigit() else 1.0
    if not path.startswith("/order"):
        kind = "none"
    if kind == "errors" and random.random() < chance:
        status, fault, order = 500, "error", False
    elif kind == "hang" and random.random() < chance:
        await asyncio.sleep(3600)
    elif FAULT == "slow-all":
        latency, fault = latency + 0.3, "slow"
    elif FAULT == "slow-tenfold" and random.random() < 0.05:
        latency, fault = latency * 10, "slow"
    elif kind == "closed":
        return None
    elif FAULT == "orders" and random.random() < 0.5:
        fault, order = "no-order", False
    await asyncio.sleep(latency)
    return status, fault, order


async def serve(reader, writer):
    global open_requests
    try:
        while not stopping.is_set():
            try:
                head = await reader.readuntil(b"\r\n\r\n")
            except (asyncio.IncompleteReadError, ConnectionError):
                return
            open_requests += 1
            try:
                given = await answer(head.split(b" ", 2)[1].decode())
                if given is None:
                    return
                await write(writer, *given)
            finally:
                open_requests -= 1
    finally:
        writer.close()


async def write(writer, status, fault, order):
    body = VERSION.encode()
    lines = [f"HTTP/1.1 {status} {'OK' if status == 200 else 'Error'}", f"content-length: {len(body)}", f"x-version: {VERSION}"]
    if fault:
        lines.append(f"x-fault: {fault}")
    if order:
        lines.append("x-order: 1")
    if stopping.is_set():
        lines.append("connection: close")
    writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
    await writer.drain()


def resident_mb():
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


async def misbehave():
    """The faults that come with time, not with a request."""
    crashed = pathlib.Path("crashed")
    while True:
        await asyncio.sleep(0.1)
        if FAULT == "crash-every-5s" and time.monotonic() - started > 5:
            os._exit(3)
        if FAULT == "crash-loop" and since_first_request() > 1:
            crashed.touch()
            os._exit(3)
        if FAULT == "memory" and first_request is not None:
            grown = min(1.0, since_first_request() / MEMORY_GROWS_FOR_S) * MEMORY_LIMIT_MB * 1.2
            while len(ballast) < grown:
                ballast.append(os.urandom(2**20))
            # Where control groups can't be written the limit is kept here.
            if resident_mb() > MEMORY_LIMIT_MB:
                os.kill(os.getpid(), signal.SIGKILL)


async def main():
    if FAULT == "crash-loop" and pathlib.Path("crashed").exists():
        os._exit(3)
    loop = asyncio.get_running_loop()
    server = await asyncio.start_server(serve, "127.0.0.1", int(os.environ["PORT"]), backlog=1024)
    loop.add_signal_handler(signal.SIGTERM, stopping.set)
    task = asyncio.create_task(misbehave())
    await stopping.wait()
    if FAULT == "late-exit":
        await asyncio.sleep(6)
    server.close()
    while open_requests > 0 and not FAULT.startswith("hang"):
        await asyncio.sleep(0.02)
    task.cancel()
    os._exit(0)


asyncio.run(main())
