"""What others would have done with the same instances: real processes, probed and replaced as these controllers do.

The router is the load's own table of addresses, which loses nothing by itself: what is harmed here is the release's and the
controller's doing. `switch` stands for kamal-proxy: the new containers must answer their health check once, then all traffic is
switched to them, then the old ones are stopped; nothing looks at the release afterwards, exited containers are restarted at once
(Docker's `unless-stopped`). `rolling` stands for a Kubernetes Deployment: one surge instance at a time, readiness every 10 s with three
failures, restarts with a backoff of 10 s, 20 s, …; an instance that is not ready gets no traffic and holds the rollout.
"""

import asyncio
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

from shipway_site import free_port

HERE = pathlib.Path(__file__).resolve().parent
INSTANCES = 2
DRAIN_S = 5
GRACE_S = 10


async def is_healthy(port, timeout=1.0):
    try:
        async with asyncio.timeout(timeout):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(b"GET /health HTTP/1.1\r\nhost: probe\r\n\r\n")
                line = await reader.readline()
            finally:
                writer.close()
            return line.split(b" ")[1:2] == [b"200"]
    except (OSError, TimeoutError):
        return False


class Instance:
    def __init__(self, folder):
        self.folder, self.port = folder, free_port()
        self.process, self.ready, self.restarts = None, False, 0
        self.start()

    def start(self):
        environment = {"PATH": os.environ["PATH"], "PORT": str(self.port)}
        command = [sys.executable, "-S", "-E", "service.py"]
        quiet = subprocess.DEVNULL
        self.process = subprocess.Popen(command, cwd=self.folder, env=environment, stdin=quiet, stdout=quiet, stderr=quiet)

    async def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                await asyncio.wait_for(asyncio.to_thread(self.process.wait), GRACE_S)
            except TimeoutError:
                pass
        self.kill()

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


class Baseline:
    """Instances, and the table of those that get traffic."""

    def __init__(self, folder):
        self.folder, self.routed, self.turn = folder, [], 0
        self.instances, self.tasks = [], []
        self.outcome = "in progress"

    def address(self):
        # A kernel refuses connections to a process that is gone: so does this.
        if not self.routed:
            return None
        self.turn += 1
        return f"127.0.0.1:{self.routed[self.turn % len(self.routed)].port}"

    def release(self, version, fault):
        folder = self.folder / f"release-{version}"
        folder.mkdir(parents=True)
        shutil.copy(HERE / "service.py", folder)
        (folder / "VERSION").write_text(version)
        (folder / "FAULT").write_text(fault)
        return folder

    def launch(self, folder):
        instance = Instance(folder)
        self.instances.append(instance)
        self.tasks.append(asyncio.create_task(self.keep(instance)))
        return instance

    async def first_release(self, fault="none"):
        folder = self.release("1", fault)
        self.routed = [self.launch(folder) for _ in range(INSTANCES)]
        for instance in self.routed:
            await self.healthy(instance, 30)

    async def healthy(self, instance, seconds):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if await is_healthy(instance.port):
                instance.ready = True
                return True
            await asyncio.sleep(0.5)
        return False

    async def stop_all(self):
        for task in self.tasks:
            task.cancel()
        for instance in self.instances:
            instance.kill()

    async def retire(self, instance):
        self.instances.remove(instance)
        await asyncio.sleep(DRAIN_S)
        await instance.stop()


class Switch(Baseline):
    """A health check, then the switch."""

    async def keep(self, instance):
        while True:
            await asyncio.sleep(0.1)
            if instance in self.instances and instance.process.poll() is not None:
                instance.start()

    async def deploy(self, fault):
        folder, old = self.release("2", fault), list(self.routed)
        new = [self.launch(folder) for _ in range(INSTANCES)]
        healthy = await asyncio.gather(*(self.healthy(instance, 30) for instance in new))
        if not all(healthy):
            self.outcome = "failed"
            for instance in new:
                self.instances.remove(instance)
                instance.kill()
            return
        self.routed = new
        await asyncio.gather(*(self.retire(instance) for instance in old))
        self.outcome = "promoted"


class Rolling(Baseline):
    """One at a time, by readiness."""

    async def keep(self, instance):
        failures, backoff = 0, 10
        while True:
            await asyncio.sleep(0.1)
            if instance not in self.instances:
                return
            if instance.process.poll() is not None:
                self.set_ready(instance, False)
                await asyncio.sleep(backoff)
                backoff = min(300, backoff * 2)
                if instance in self.instances:
                    instance.start()
                    self.set_ready(instance, await self.healthy(instance, 30))
                continue
            if time.monotonic() % 10 < 0.1 and instance.ready:
                failures = 0 if await is_healthy(instance.port) else failures + 1
                if failures >= 3:
                    self.set_ready(instance, False)
            elif not instance.ready and instance in self.newcomers and await is_healthy(instance.port):
                failures = 0
                self.set_ready(instance, True)

    newcomers = ()

    def set_ready(self, instance, ready):
        instance.ready = ready
        if ready and instance not in self.routed and instance in self.instances:
            self.routed.append(instance)
        if not ready and instance in self.routed:
            self.routed.remove(instance)

    async def deploy(self, fault):
        folder, old = self.release("2", fault), list(self.routed)
        self.newcomers = []
        for instance in old:
            newcomer = self.launch(folder)
            self.newcomers.append(newcomer)
            # The rollout waits for as long as not all newcomers are ready.
            while not all(it.ready for it in self.newcomers):
                await asyncio.sleep(0.2)
            if instance in self.routed:
                self.routed.remove(instance)
            await self.retire(instance)
        self.outcome = "promoted"


BASELINES = {"health-check then switch": Switch, "readiness-only rolling": Rolling}
