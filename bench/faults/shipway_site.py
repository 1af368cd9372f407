"""One Shipway server with one service, for one cell of the table."""

import asyncio
import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
HOST = "shop.test"
GIT_ENVIRONMENT = {
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_TERMINAL_PROMPT": "0",
    **{f"GIT_{who}_{what}": "bench@example.invalid" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
}
# Orders are reported a moment after they are made: the first seconds of an exposure are skipped.
COMPARISON = """    analysis:
      - { metric: error-rate, worse_than: stable }
      - { metric: slow-rate, over: 120ms, worse_than: stable }
      - { metric: orders, provider: events, worse_than: stable, direction: decrease, skip: 3s }
"""
# It serves everybody, whether the rollout goes on to watch it or keeps the old set warm.
PROMOTED = ("promoted", "kept_warm", "watching")
ENDED = ("rolled_back", "aborted", "rejected", "superseded", "failed")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def init_file(shipway, folder):
    """What `shipway init` writes for a new repository."""
    folder.mkdir(parents=True)
    run = subprocess.run([shipway, "init", folder], capture_output=True, text=True)
    if run.returncode != 0:
        raise RuntimeError(f"shipway init: {run.stdout}{run.stderr}")
    return (folder / "shipway.yaml").read_text()


def block(text, key):
    """The lines of a key of `production`, with the deeper ones below it."""
    production = text[text.index("  production:") :]
    found = re.search(rf"^    {key}:.*\n(?:^ {{5,}}.*\n|^\s*#.*\n)*", production, re.MULTILINE)
    return found.group(0) if found else ""


def config(init_text, strategy, analysis, divide_holds=1):
    """`shipway.yaml` of a column: the strategy by itself or as `init` writes it, the analysis of `init` or a comparison."""
    lines = block(init_text, "strategy") if strategy == "canary" else f"    strategy: {strategy}\n"
    if strategy == "canary" and "canary" not in lines:
        lines = "    strategy: canary\n"

    def shorter(found):
        seconds = int(found.group(1)) * {"m": 60, "s": 1}[found.group(2)]
        return f"hold: {max(2, seconds // divide_holds)}s"

    lines = re.sub(r"hold: (\d+)([ms])\b", shorter, lines)
    judged = block(init_text, "analysis") if analysis == "init" else COMPARISON
    return f"""service: shop
artifact: {{ source: . }}
run:
  command: python3 -S -E service.py
  health: {{ http: /health }}
  limits: {{ memory: 160MB }}
environments:
  production:
    instances: 2
    hosts: [{HOST}]
    drain: 5s
{lines}{judged}"""


class Site:
    def __init__(self, shipway, folder, config_text):
        self.shipway, self.folder = shipway, folder
        self.api = f"127.0.0.1:{free_port()}"
        self.proxy = f"127.0.0.1:{free_port()}"
        self.repository = folder / "repository"
        self.repository.mkdir(parents=True)
        self.git("init", "--quiet", "--initial-branch=main")
        shutil.copy(HERE / "service.py", self.repository)
        (self.repository / "shipway.yaml").write_text(config_text)
        self.server = None
        self.pushes = []

    def git(self, *words):
        environment = os.environ | GIT_ENVIRONMENT
        subprocess.run(["git", "-C", self.repository, *words], check=True, env=environment, capture_output=True)

    async def start(self):
        log = open(self.folder / "server.log", "ab")
        command = [self.shipway, "server", "--data", self.folder / "data", "--listen", self.api, "--proxy-listen", self.proxy]
        environment = {name: value for name, value in os.environ.items() if name != "SHIPWAY_TOKEN"}
        self.server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment)
        for _ in range(600):
            if self.server.poll() is not None:
                break
            if await self.get("/readyz") is not None:
                return
            await asyncio.sleep(0.1)
        raise RuntimeError(f"the server does not start:\n{self.log()}")

    def log(self):
        return (self.folder / "server.log").read_text()[-4000:]

    def push(self, version, fault):
        """Commits and pushes a release, and does not wait for its rollout."""
        (self.repository / "VERSION").write_text(version)
        (self.repository / "FAULT").write_text(fault)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", f"{version} {fault}")
        command = ["git", "-C", self.repository, "push", f"http://{self.api}/git/shop", "main"]
        log = open(self.folder / f"push-{version}.log", "wb")
        environment = os.environ | GIT_ENVIRONMENT
        self.pushes.append(subprocess.Popen(command, stdout=log, stderr=log, env=environment))

    async def get(self, path):
        return await asyncio.to_thread(self.fetch, path, None)

    async def post(self, path, body):
        return await asyncio.to_thread(self.fetch, path, body)

    def fetch(self, path, body):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://{self.api}{path}", data, {"content-type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                text = answer.read()
                return json.loads(text) if text[:1] in (b"{", b"[") else text
        except (OSError, ValueError):
            return None

    async def rollouts(self):
        """All rollouts, the oldest first."""
        page = await self.get("/api/v1/rollouts?service=shop&limit=50")
        return list(reversed(page["items"])) if isinstance(page, dict) else []

    async def rollout_of(self, release):
        """The first rollout of a release."""
        return next((it for it in await self.rollouts() if it["release"] == release), None)

    async def stable(self):
        """The version number that the log says is stable: the release of the environment."""
        page = await self.get("/api/v1/environments")
        items = page["items"] if isinstance(page, dict) else []
        return items[0].get("release") if items else None

    async def report_orders(self, orders):
        events = [{"name": "orders", "count": n, "release": int(version)} for version, n in orders.items() if version.isdigit()]
        if events:
            await self.post("/api/v1/services/shop/metrics", {"environment": "production", "events": events})

    def stop(self):
        if self.server is not None:
            self.server.terminate()
            try:
                self.server.wait(20)
            except subprocess.TimeoutExpired:
                self.server.kill()
                self.server.wait()
            subprocess.run([self.shipway, "admin", "stop-all", "--data", self.folder / "data"], capture_output=True)
        for push in self.pushes:
            push.kill()
            push.wait()
