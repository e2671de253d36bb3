"""A server of large files (Git LFS API, "Batch" and "Basic Transfers"), its objects at another address."""

import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from counterparts.git_hosts import GitHost, read_pieces

KIND = "application/vnd.git-lfs+json"
KEY = "key-of-the-store-0001"  # what opens an object, as a signature in an address would


@dataclass
class LargeFileServer:
    """A server that runs.

    Attributes:
        url: where objects lie.
        objects: by their SHA-256.
        seen: method, path and headers of each request for an object.
        batches: operation and Authorization of each batch.
        moved_to: where requests for objects are led, in place of being answered.
    """

    url: str
    objects: dict[str, bytes] = field(default_factory=dict)
    seen: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    batches: list[tuple[str, str | None]] = field(default_factory=list)
    moved_to: str = ""

    def attach(self, host: GitHost, name: str) -> None:
        """Answer batches of a repository at its host, to whom its credential opens it."""

        def answer(request: BaseHTTPRequestHandler) -> None:
            asked = json.loads(b"".join(read_pieces(request)))
            told = request.headers.get("authorization")
            self.batches.append((asked["operation"], told))
            if told != host.to_header():
                reply(request, 401, {"message": "who are you?"})
                return
            described = [self._describe(asked["operation"], one) for one in asked["objects"]]
            reply(request, 200, {"transfer": "basic", "objects": described, "hash_algo": "sha256"})

        host.answers[f"/{name}.git/info/lfs/objects/batch"] = answer

    def _describe(self, operation: str, one: dict[str, Any]) -> dict[str, Any]:
        known = {"oid": one["oid"], "size": one["size"]}
        way = {"href": f"{self.url}/objects/{one['oid']}", "header": {"x-store": KEY}}
        if operation == "upload":
            if one["oid"] in self.objects:
                return known
            verify = {"href": f"{self.url}/verify/{one['oid']}", "header": {"x-store": KEY}}
            return {**known, "actions": {"upload": way, "verify": verify}}
        if one["oid"] not in self.objects:
            return {**known, "error": {"code": 404, "message": "there is no such object"}}
        return {**known, "actions": {"download": way}}


def reply(request: BaseHTTPRequestHandler, status: int, told: object) -> None:
    """Send an answer of the API."""
    body = json.dumps(told).encode()
    request.send_response(status)
    request.send_header("content-type", KIND)
    request.send_header("content-length", str(len(body)))
    request.end_headers()
    request.wfile.write(body)


def run_large_files() -> Iterator[LargeFileServer]:
    """Give a server that runs on loopback."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer()

        def do_PUT(self) -> None:
            self._answer()

        def do_POST(self) -> None:
            self._answer()

        def log_message(self, *arguments: Any) -> None:
            pass

        def _answer(self) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            made.seen.append((self.command, self.path, headers))
            body = b"".join(read_pieces(self))
            _, kind, oid = self.path.split("/")
            if made.moved_to:
                self.send_response(307)
                self.send_header("location", f"{made.moved_to}{self.path}")
                self.send_header("content-length", "0")
                self.end_headers()
            elif headers.get("x-store") != KEY:
                reply(self, 403, {"message": "no key"})
            elif kind == "verify":
                is_whole = len(made.objects.get(oid, b"")) == json.loads(body)["size"]
                reply(self, 200 if is_whole else 404, {})
            elif self.command == "PUT":
                if hashlib.sha256(body).hexdigest() != oid:
                    reply(self, 422, {"message": "another object"})
                    return
                made.objects[oid] = body
                reply(self, 200, {})
            else:
                self.send_response(200)
                self.send_header("content-type", "application/octet-stream")
                self.send_header("content-length", str(len(made.objects[oid])))
                self.end_headers()
                self.wfile.write(made.objects[oid])

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made = LargeFileServer(f"http://127.0.0.1:{server.server_address[1]}")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield made
    server.shutdown()
    server.server_close()
