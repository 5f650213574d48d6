"""The door of the server: who may ask, by which names, and how much may be sent."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlsplit

__all__ = ["ALLOWANCES", "Access", "Guard", "is_plain_name"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

MIB = 2**20
# Bodies that are no upload: parameters of a job.
MAX_PARAMETERS = MIB
# Of what is too large, this many times the limit is read before the connection is closed.
_DRAINED = 8

ALLOWANCES = {
    "images": "PUT and DELETE of images in the studies",
    "models": "PUT and DELETE of weights",
    "uncompress": "archives in sessions",
    "proxy": "all paths and POST of the DICOMweb proxy",
}
"""What is closed unless ``--allow NAME`` opens it."""

# Query parameters that become a part of a path.
_NAMES = ("image", "id", "label", "tag", "label_tag", "session_id", "model")
_UNSAFE = re.compile(r"[/\\\x00-\x1f\x7f]|\.\.")
# First part of a path of DICOMweb (PS3.18): what a viewer reads. Parts are UIDs and words.
_DICOMWEB = re.compile(r"(?:(?:wado|qido|stow)/)?(?:studies|series|instances)(?:/[\w.,-]+)*/?", re.ASCII)
_PROXY = "/proxy/dicom/"
_CLOSED = (
    ("images", ("PUT", "DELETE"), re.compile(r"/datastore(?:/|/image/?)?")),
    ("models", ("PUT", "DELETE"), re.compile(r"/model(?:/.*)?")),
)


@dataclass(frozen=True)
class Access:
    """Who may use the server, and for what.

    Attributes:
        hosts: names by which the server may be called, without a port.
        origins: of web pages that may call it, such as ``http://127.0.0.1:8000``.
        allowed: of ``ALLOWANCES``.
        max_upload: bytes of an upload.
    """

    hosts: frozenset[str]
    origins: frozenset[str]
    allowed: frozenset[str] = frozenset()
    max_upload: int = 512 * MIB

    @classmethod
    def from_conf(cls, conf: Mapping[str, str]) -> Access:
        """Reads ``conf["access"]``, which ``to_conf`` wrote."""
        values = json.loads(conf.get("access", "{}"))
        hosts, origins, allowed = (frozenset(values.get(name, ())) for name in ("hosts", "origins", "allowed"))
        return cls(hosts, origins, allowed, values.get("max_upload", cls.max_upload))

    def to_conf(self) -> str:
        """Returns the text that ``from_conf`` reads."""
        sets = {"hosts": self.hosts, "origins": self.origins, "allowed": self.allowed}
        return json.dumps({name: sorted(values) for name, values in sets.items()} | {"max_upload": self.max_upload})


def is_plain_name(name: str) -> bool:
    """Returns whether a name cannot lead out of the folder that it is put into."""
    return not _UNSAFE.search(name)


class Guard:
    """ASGI middleware that refuses what ``Access`` does not allow, before MONAI Label sees it.

    It also removes the files that a request has left, whatever came of it: routes add the folders to
    ``scope["received"]``.
    """

    def __init__(self, app: Callable[..., Awaitable[None]], access: Access) -> None:
        self.app, self.access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        if refusal := self._find_refusal(scope, headers):
            await _refuse(send, *refusal)
            return
        limit = self._find_limit(scope, headers)
        stated = headers.get("content-length", "")
        if stated.isdigit() and int(stated) > limit:
            await _drain(receive, limit)
            await _refuse(send, *_too_large(limit))
            return
        body = _Body(receive, send, limit)
        scope["received"] = []
        try:
            await self.app(scope, body.receive, body.send)
        except _TooLargeError:
            pass
        finally:
            for folder in scope["received"]:
                shutil.rmtree(folder, ignore_errors=True)
        if body.is_too_large and not body.has_started:
            await _drain(receive, limit)
            await _refuse(send, *_too_large(limit))

    def _find_refusal(self, scope: Scope, headers: Mapping[str, str]) -> tuple[int, str] | None:
        method, path = scope["method"], scope["path"]
        if _host_name(headers.get("host", "")) not in self.access.hosts:
            return 403, "this server is not called by that host name; start it with --host-name NAME to allow one"
        origin = headers.get("origin")
        if origin is not None and origin not in self.access.origins:
            return 403, "web pages of that origin may not use this server; start it with --origin URL to allow one"
        # A page's images and scripts are asked for without an origin. Links may be followed.
        if headers.get("sec-fetch-site") == "cross-site" and origin is None:
            is_link = method == "GET" and headers.get("sec-fetch-mode") == "navigate"
            if not is_link:
                return 403, "web pages of other sites may not use this server"
        if "\\" in path or "\0" in path or ".." in path.split("/"):
            return 422, "the path has a backslash, a NUL or '..'"
        for name, value in parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True):
            if name in _NAMES and not is_plain_name(value):
                return 422, f"{name} may have no '/', '\\', '..' or control character"
        return self._find_closed(method, path)

    def _find_closed(self, method: str, path: str) -> tuple[int, str] | None:
        for name, methods, pattern in _CLOSED:
            if method in methods and pattern.fullmatch(path) and name not in self.access.allowed:
                return 403, f"{ALLOWANCES[name]}: closed; start the server with --allow {name} to open it"
        if path.startswith(_PROXY.rstrip("/")) and "proxy" not in self.access.allowed:
            rest = path[len(_PROXY) :]
            if method not in ("GET", "HEAD", "OPTIONS") or not _DICOMWEB.fullmatch(rest) or ".." in rest:
                return (
                    403,
                    "the proxy reads studies, series and instances of DICOMweb only; --allow proxy opens it",
                )
        return None

    def _find_limit(self, scope: Scope, headers: Mapping[str, str]) -> int:
        is_upload = headers.get("content-type", "").startswith("multipart/") or scope["path"].startswith(_PROXY)
        return self.access.max_upload if is_upload else MAX_PARAMETERS


def _host_name(host: str) -> str:
    """Returns the name in a ``Host``, without its port; nothing for what is none."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


class _TooLargeError(Exception):
    pass


class _Body:
    """Counts what is received; what the app says of a body that is too large is not sent."""

    def __init__(self, receive: Receive, send: Send, limit: int) -> None:
        self._receive, self._send, self._left = receive, send, limit
        self.has_started = self.is_too_large = False

    async def receive(self) -> Message:
        message = await self._receive()
        self._left -= len(message.get("body", b""))
        if self._left < 0:
            self.is_too_large = True
            raise _TooLargeError
        return message

    async def send(self, message: Message) -> None:
        if self.is_too_large and not self.has_started:
            return
        self.has_started = True
        await self._send(message)


def _too_large(limit: int) -> tuple[int, str]:
    return 413, f"more than {limit // MIB} MiB; start the server with a larger --max-upload to allow it"


async def _drain(receive: Receive, limit: int) -> None:
    """Reads on for a while, keeping nothing: most clients hear an answer only when they have sent all."""
    left = _DRAINED * limit
    while left > 0:
        message = await receive()
        left -= len(message.get("body", b""))
        if not message.get("more_body"):
            return


async def _refuse(send: Send, status: int, detail: str) -> None:
    content = json.dumps({"detail": detail}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": [*headers, (b"connection", b"close")]})
    await send({"type": "http.response.body", "body": content})
