"""Stand-ins of those who know of vulnerabilities, with their real wire formats on a real socket.

OSV: https://google.github.io/osv.dev/post-v1-query/ and https://ossf.github.io/osv-schema/. npm's registry: what
`npm audit` posts to `/-/npm/v1/security/advisories/bulk` and then reads of a package with advisories
(npm/cli, workspaces/arborist/lib/audit-report.js and metavuln-calculator).
"""

import gzip
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Advisories:
    """What is known, and what was asked.

    Attributes:
        python: vulnerabilities by package name, as OSV has them.
        npm: advisories by package name, as npm's registry has them.
        asked: bodies of the questions.
        status: what is answered with.
    """

    def __init__(self) -> None:
        self.url = ""
        self.python: dict[str, list[dict[str, Any]]] = {}
        self.npm: dict[str, list[dict[str, Any]]] = {}
        self.asked: list[dict[str, Any]] = []
        self.status = 200

    def answer(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """To a POST."""
        self.asked.append(body)
        if path == "/v1/query":
            known = self.python.get(body["package"]["name"])
            return {"vulns": known} if known else {}
        return {name: known for name, known in self.npm.items() if name in body}


@contextmanager
def known() -> Iterator[Advisories]:
    """Serve both."""
    advisories = Advisories()

    class Service(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            self._send(advisories.answer(self.path, json.loads(body)))

        def do_GET(self) -> None:
            name = self.path.strip("/")
            manifests = {version: {"name": name, "version": version} for version in ("1.0.0", "1.0.1")}
            self._send({"name": name, "dist-tags": {"latest": "1.0.1"}, "versions": manifests})

        def _send(self, answer: dict[str, Any]) -> None:
            content = json.dumps(answer).encode()
            self.send_response(advisories.status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Service)
    advisories.url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield advisories
    finally:
        server.shutdown()
        server.server_close()
