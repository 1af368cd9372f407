"""A forge for tests: git over HTTP by git's own backend, and an API that records each call.

Its answers have the shapes that GitHub, GitLab and Gitea document. usage: fake_forge.py PORT FOLDER
"""

import base64
import http.server
import json
import os
import pathlib
import subprocess
import sys
import threading
import urllib.parse

port, folder = int(sys.argv[1]), pathlib.Path(sys.argv[2])
TOKEN = "forge-token-4711"
lock = threading.Lock()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, status, body, kind="application/json"):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def handle_any(self):
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        url = urllib.parse.urlsplit(self.path)
        if ".git/" in url.path:
            return self.git(url, body)
        with lock:
            return self.api(url, body)

    do_GET = do_POST = do_PUT = do_PATCH = handle_any

    def git(self, url, body):
        users = [f"{user}:{TOKEN}" for user in ("x-access-token", "oauth2")]
        allowed = ["Basic " + base64.b64encode(user.encode()).decode() for user in users]
        if self.headers.get("Authorization") not in allowed:
            self.send_response(401)
            self.send_header("WWW-Authenticate", "Basic realm=git")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        environment = {
            "PATH": os.environ["PATH"],
            "GIT_PROJECT_ROOT": str(folder),
            "GIT_HTTP_EXPORT_ALL": "1",
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": "safe.directory",
            "GIT_CONFIG_VALUE_0": "*",
            "REQUEST_METHOD": self.command,
            "PATH_INFO": url.path,
            "QUERY_STRING": url.query,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
        }
        done = subprocess.run(["git", "http-backend"], input=body, env=environment, capture_output=True)
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n") if ": " in line)
        status = int(fields.get("Status", "200").split()[0])
        self.answer(status, content, fields.get("Content-Type", "text/plain"))

    def api(self, url, body):
        tokens = (f"Bearer {TOKEN}", f"token {TOKEN}")
        is_allowed = self.headers.get("Authorization") in tokens or self.headers.get("PRIVATE-TOKEN") == TOKEN
        if not is_allowed:
            return self.answer(401, b'{"message":"Bad credentials"}')
        sent = json.loads(body) if body else None
        store = folder / "objects.json"
        objects = json.loads(store.read_text()) if store.exists() else []
        if self.command == "GET":
            found = [it for it in objects if it["path"] == url.path]
            return self.answer(200, json.dumps(found).encode())
        if self.command == "POST":
            made = {"id": len(objects) + 100, "path": url.path, **sent}
            objects.append(made)
        else:
            identity = int(url.path.rsplit("/", 1)[1])
            made = next(it for it in objects if it["id"] == identity)
            made.update(sent)
        store.write_text(json.dumps(objects))
        with (folder / "calls.jsonl").open("a") as calls:
            calls.write(json.dumps({"method": self.command, "path": url.path, "body": sent}) + "\n")
        self.answer(201, json.dumps(made).encode())

    def log_message(self, *arguments):
        pass


http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
