"""The smallest shop that is a real service: Python's standard library and nothing else.

    GET /               who answers: {"service": "shop", "version": "1.0"}
    GET /items          what there is to buy
    GET /health         the process is alive
    GET /health/ready   it can serve: 200, or 503 with the dependency that is down

VERSION holds the version. ERROR_SHARE in app.conf is the share of shoppers' requests that are answered with 500: a
release with a bug in it, for trying what a deployment does about one. Health endpoints are never hit by it.

PORT says where to listen (0: any free port, printed). SIGTERM: no new connections, open requests are finished, exit 0.
"""

import json
import os
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

HERE = Path(__file__).resolve().parent
# From SIGTERM until open requests are given up. Shorter than any supervisor's patience.
GRACE_SECONDS = 8


class ConfigError(Exception):
    """The release's own files don't make sense; the message says which and why."""


def read_config(text):
    """The KEY=VALUE lines of app.conf, `#` starting a comment."""
    config = {}
    for number, line in enumerate(text.splitlines(), 1):
        line = line.partition("#")[0].strip()
        if not line:
            continue
        key, equals, value = line.partition("=")
        if not equals:
            raise ConfigError(f"app.conf:{number}: expected KEY=VALUE, got {line!r}")
        config[key.strip()] = value.strip()
    return config


def error_share(config):
    """ERROR_SHARE as a number from 0 to 1."""
    text = config.get("ERROR_SHARE", "0")
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0.0 <= share <= 1.0:
        raise ConfigError(f"app.conf: ERROR_SHARE must be a number from 0 to 1, got {text!r}")
    return share


class Bug:
    """Strikes a given share of the requests, evenly: the same requests each time, so that a trial can be repeated."""

    def __init__(self, share):
        self.share = share
        self.requests = 0
        self.lock = threading.Lock()

    def strikes(self):
        with self.lock:
            before = int(self.requests * self.share)
            self.requests += 1
            return int(self.requests * self.share) > before


class Shop(ThreadingHTTPServer):
    """One thread for each connection; knows how many requests are open."""

    daemon_threads = True
    # The default of 5 refuses connections when many come at once.
    request_queue_size = 512

    def __init__(self, address, version, share, catalogue=HERE / "items.json"):
        super().__init__(address, Handler)
        self.version = version
        self.bug = Bug(share)
        self.catalogue = catalogue
        self.draining = False
        self.open_requests = 0
        self.quiet = threading.Condition()

    def items(self):
        return json.loads(self.catalogue.read_text())

    def checks(self):
        """The dependencies by name, and whether each is well."""
        try:
            return {"catalogue": bool(self.items())}
        except (OSError, ValueError):
            return {"catalogue": False}

    def drain(self):
        """Stops accepting and waits until the open requests are answered, or the grace is over."""
        self.draining = True
        self.shutdown()
        with self.quiet:
            self.quiet.wait_for(lambda: self.open_requests == 0, timeout=GRACE_SECONDS)
        self.server_close()

    def handle_error(self, request, client_address):
        """A client that hangs up is no error of ours; anything else is printed."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    """Answers requests, several on one connection."""

    protocol_version = "HTTP/1.1"
    # Headers and body leave together, and at once.
    wbufsize = -1
    disable_nagle_algorithm = True
    # An idle connection is closed after this long.
    timeout = 75

    def do_GET(self):
        shop = self.server
        with shop.quiet:
            shop.open_requests += 1
        try:
            self.answer(*self.route(shop))
        finally:
            with shop.quiet:
                shop.open_requests -= 1
                shop.quiet.notify_all()

    do_HEAD = do_GET

    def route(self, shop):
        """The status and the body for this path."""
        path = self.path.partition("?")[0]
        if path == "/health":
            return 200, {"status": "ok"}
        if path == "/health/ready":
            checks = shop.checks()
            ready = all(checks.values())
            return (200 if ready else 503), {"ready": ready, "checks": checks}
        if path not in ("/", "/items"):
            return 404, {"error": f"there is no {path}"}
        if shop.bug.strikes():
            return 500, {"error": "the bug of this release"}
        if path == "/":
            return 200, {"service": "shop", "version": shop.version}
        return 200, {"items": shop.items()}

    def answer(self, status, body):
        payload = (json.dumps(body) + "\n").encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(payload)))
        self.send_header("X-Version", self.server.version)
        if self.server.draining:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(payload)
        self.wfile.flush()

    def version_string(self):
        return "shop"

    def log_message(self, *_):
        """The proxy in front keeps the access log."""


def main():
    try:
        version = (HERE / "VERSION").read_text().strip()
        share = error_share(read_config((HERE / "app.conf").read_text()))
        shop = Shop(("127.0.0.1", int(os.environ.get("PORT", "0"))), version, share)
    except (OSError, ValueError, ConfigError) as problem:
        print(f"shop: {problem}", file=sys.stderr)
        return 2

    # The main thread only waits for signals: a drain must not run inside the handler of one.
    signals = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    threading.Thread(target=shop.serve_forever, args=(0.05,), daemon=True).start()
    print(f"shop {version} on http://127.0.0.1:{shop.server_port}", flush=True)
    signal.sigwait(signals)
    began = time.monotonic()
    shop.drain()
    print(f"shop {version} stopped, drained in {time.monotonic() - began:.1f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
