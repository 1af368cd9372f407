"""Steady load: users who each send a request at fixed times, whatever became of those before, and what became of each request."""

import asyncio
import collections
import dataclasses
import time

# A person has left by then.
GIVE_UP_AFTER_S = 5.0


@dataclasses.dataclass(slots=True)
class Request:
    sent: float
    done: float
    # "200", "503", "timeout", "broken".
    result: str
    version: str
    fault: str
    order: bool

    @property
    def is_harmed(self):
        return self.result != "200" or self.fault != ""


class User:
    """One user with a cookie and a few kept-alive connections."""

    def __init__(self, address_of, host):
        self.address_of, self.host = address_of, host
        self.cookies, self.idle = {}, []

    async def request(self):
        sent = time.monotonic()
        result, version, fault, order = "broken", "", "", False
        try:
            async with asyncio.timeout(GIVE_UP_AFTER_S):
                result, version, fault, order = await self.exchange()
        except TimeoutError:
            result = "timeout"
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError, IndexError):
            pass
        return Request(sent, time.monotonic(), result, version, fault, order)

    async def exchange(self):
        address = self.address_of()
        if address is None:
            return "503", "", "", False
        reader, writer = await self.connection(address)
        keep = False
        try:
            writer.write(self.head())
            await writer.drain()
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            fields = collections.defaultdict(str)
            for line in head[1:]:
                name, _, value = line.partition(":")
                if name.lower() == "set-cookie":
                    key, _, content = value.strip().partition(";")[0].partition("=")
                    self.cookies[key] = content
                fields[name.lower()] = value.strip()
            await reader.readexactly(int(fields["content-length"] or 0))
            keep = fields["connection"] != "close"
            order = fields["x-order"] == "1"
            return head[0].split(" ")[1], fields["x-version"], fields["x-fault"], order
        finally:
            if keep:
                self.idle.append((address, reader, writer, time.monotonic()))
            else:
                writer.close()

    def head(self):
        cookies = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        cookie = f"cookie: {cookies}\r\n" if cookies else ""
        return f"GET /order HTTP/1.1\r\nhost: {self.host}\r\n{cookie}\r\n".encode()

    async def connection(self, address):
        while self.idle:
            known, reader, writer, since = self.idle.pop()
            if known == address and not reader.at_eof() and time.monotonic() - since < 10:
                return reader, writer
            writer.close()
        host, _, port = address.rpartition(":")
        return await asyncio.open_connection(host, int(port))


class Load:
    """`per_second` requests by `users` users, until it is stopped."""

    def __init__(self, address_of, host, per_second=200, users=50):
        self.requests, self.tasks = [], set()
        self.clients = [User(address_of, host) for _ in range(users)]
        self.pause = users / per_second
        self.main = asyncio.create_task(self.run())

    async def run(self):
        step = self.pause / len(self.clients)
        due = time.monotonic()
        while True:
            for client in self.clients:
                due += step
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                task = asyncio.create_task(self.one(client))
                self.tasks.add(task)
                task.add_done_callback(self.tasks.discard)

    async def one(self, client):
        self.requests.append(await client.request())

    def orders_since(self, index):
        """Orders by version among the requests from `index` on, and the next index."""
        orders = collections.Counter()
        for request in self.requests[index:]:
            if request.order:
                orders[request.version] += 1
        return orders, len(self.requests)

    def forget(self):
        """Drops the requests so far."""
        self.requests.clear()

    async def stop(self):
        self.main.cancel()
        if self.tasks:
            await asyncio.wait(self.tasks, timeout=GIVE_UP_AFTER_S + 1)
        for client in self.clients:
            for _, _, writer, _ in client.idle:
                writer.close()
        return sorted(self.requests, key=lambda request: request.sent)


@dataclasses.dataclass
class Harm:
    """What a fault did to users."""

    harmed: int
    # From the first harmed request to the last one that was harmed or reached the new version; None when nothing was harmed.
    seconds: float | None
    # At the end all traffic was on stable and well.
    recovered: bool
    total: int


def measure_harm(requests, stable, settled_s=2.0):
    """`requests` in order of when they were sent. Recovered: the last `settled_s` seconds are good answers of `stable` only."""
    harmed = [request for request in requests if request.is_harmed]
    if not harmed:
        return Harm(0, None, True, len(requests))
    first = harmed[0].sent
    away = [r for r in requests if r.sent >= first and (r.is_harmed or r.version != stable)]
    last = away[-1].sent
    recovered = requests[-1].sent - last > settled_s
    return Harm(len(harmed), last - first, recovered, len(requests))
