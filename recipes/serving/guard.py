"""What stands before the page: it answers to nobody else's pages, and the page asks nothing of other hosts."""

from __future__ import annotations

from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

POLICY = "; ".join(
    [
        "default-src 'self'",
        "script-src 'self' 'unsafe-inline' 'unsafe-eval'",  # Gradio's page has scripts in it
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "media-src 'self' data: blob:",
        "frame-ancestors 'self'",
        "form-action 'self'",
    ]
)
"""Browsers then load nothing from other hosts, whatever is on the page (Content-Security-Policy)."""


class Guard:
    """ASGI middleware: refuses requests that are not of the page, and sends `POLICY` with every answer.

    Args:
        app: What is guarded.
        hosts: Names by which the page may be called, against pages of others that reach for this machine (DNS
            rebinding, forged requests); None: any.
        max_body: Bytes that a request may have.
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str] | None, max_body: int) -> None:
        self.app, self.hosts, self.max_body = app, hosts, max_body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or hand on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        if refusal is not None:
            await refusal(scope, receive, send)
            return

        async def with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["Content-Security-Policy"] = POLICY
                headers["Referrer-Policy"] = "no-referrer"
                headers["X-Content-Type-Options"] = "nosniff"
            await send(message)

        await self.app(scope, receive, with_policy)

    def _refusal(self, scope: Scope) -> PlainTextResponse | None:
        headers = Headers(scope=scope)
        called = [f"//{headers.get('host', '')}", headers.get("origin")]
        if self.hosts is not None and any(urlsplit(name).hostname not in self.hosts for name in called if name):
            return PlainTextResponse("This page is for visitors of this machine alone.", 403)
        if scope["path"].partition("file=")[2].startswith(("http:", "https:")):  # Gradio would fetch it
            return PlainTextResponse("Files of other hosts are not fetched.", 403)
        length = headers.get("content-length", "")
        if scope["method"] in ("POST", "PUT", "PATCH"):
            # A server goes by the chunks of a request that has both.
            if not length.isdecimal() or "transfer-encoding" in headers:
                return PlainTextResponse("A request must say how long it is.", 411)
            if int(length) > self.max_body:
                return PlainTextResponse("The file is too large.", 413)
        return None
