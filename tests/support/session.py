"""A visitor of the page without a browser: the same requests, from any address of this machine."""

import http.client
import json
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

BOUNDARY = "b0undary"
JSON = {"content-type": "application/json"}


class Session:
    """One session of Gradio's. `come_from` is the visitor's address in 127.0.0.0/8; headers go with each request."""

    def __init__(self, address: str, come_from: str = "127.0.0.1", **headers: str):
        self.host, self.come_from, self.headers = urlsplit(address).netloc, come_from, headers
        self.name = secrets.token_hex(5)

    def renewed(self) -> "Session":
        """Another session of the same visitor."""
        return Session(f"http://{self.host}", self.come_from, **self.headers)

    def ask(self, place: str, body: bytes | None = None, **headers: str) -> tuple[int, bytes]:
        """Status and answer."""
        connection = self._sent(place, body, headers)
        with connection.getresponse() as answer:
            text = answer.status, answer.read()
        connection.close()
        return text

    def _sent(self, place: str, body: bytes | None, headers: dict[str, str]) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection(self.host, timeout=300, source_address=(self.come_from, 0))
        connection.request("GET" if body is None else "POST", place, body, self.headers | headers)
        return connection

    def functions(self) -> dict[str, int]:
        """The number of each handler of the page, by its name."""
        dependencies = json.loads(self.ask("/config")[1])["dependencies"]
        return {one["api_name"]: one["id"] for one in dependencies if one["api_name"]}

    def upload(self, file: bytes, name: str = "photo.jpg") -> dict[str, Any]:
        """The file as other requests name it; RuntimeError where it is refused."""
        head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'
        body = head.encode() + file + f"\r\n--{BOUNDARY}--\r\n".encode()
        kind = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}
        status, answer = self.ask("/gradio_api/upload", body, **kind)
        if status != 200:
            raise RuntimeError(f"{status}: {answer.decode()}")
        return {"path": json.loads(answer)[0], "orig_name": Path(name).name, "meta": {"_type": "gradio.FileData"}}

    def join(self, function: int, *data: Any) -> int:
        """Put a request into the queue: the status."""
        body = json.dumps({"data": data, "fn_index": function, "session_hash": self.name})
        return self.ask("/gradio_api/queue/join", body.encode(), **JSON)[0]

    def messages(self) -> Iterator[dict[str, Any]]:
        """What the server tells this session, until nothing more is to come."""
        connection = self._sent(f"/gradio_api/queue/data?session_hash={self.name}", None, {})
        with connection.getresponse() as answer:
            for line in answer:
                if line.startswith(b"data: "):
                    yield json.loads(line.removeprefix(b"data: "))
        connection.close()

    def outcome(self) -> list[Any]:
        """What the last request came to; RuntimeError with what is said instead."""
        for message in self.messages():
            if message["msg"] == "process_completed":
                if message["success"]:
                    return message["output"]["data"]
                raise RuntimeError(message["output"].get("error"))
        raise RuntimeError("the server said nothing")

    def do(self, function: int, *data: Any) -> list[Any]:
        self.join(function, *data)
        return self.outcome()
