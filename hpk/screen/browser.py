"""The same screen in a browser: textual-serve on 127.0.0.1, for whoever has the token alone.

Other users of this machine can connect to the port too. So the address holds a token that is made
anew each time; the first request with it gets a cookie, and nothing is answered without. Requests
for another host's name are refused, or a page somewhere could have the browser ask for it.
"""

from __future__ import annotations

import hmac
import secrets
import shlex
from collections.abc import Awaitable, Callable, Sequence

from aiohttp import web
from textual_serve.server import Server

_COOKIE = "hpk-top"
_HOST = "127.0.0.1"
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class TopServer(Server):
    """Runs one `hpk top` for each browser window.

    :param argv: that command.
    :param port: of 127.0.0.1.
    """

    def __init__(self, argv: Sequence[str], port: int, say: Callable[[str], None]) -> None:
        super().__init__(shlex.join(argv), host=_HOST, port=port, title="hpk top")
        self._say = say
        self._token = secrets.token_urlsafe(32)

    @property
    def address(self) -> str:
        """What to open; a secret."""
        return f"http://{_HOST}:{self.port}/?token={self._token}"

    async def on_startup(self, app: web.Application) -> None:
        """Say where, on the terminal alone."""
        self._say(f"{self.address}\n(ssh -L {self.port}:{_HOST}:{self.port} … from elsewhere)")

    async def _make_app(self) -> web.Application:
        app = await super()._make_app()
        app.middlewares.append(self._guard)
        return app

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.headers.get("Host") != f"{_HOST}:{self.port}":
            raise web.HTTPForbidden(text="this is served as 127.0.0.1 alone")
        if self._is_token(request.query.get("token", "")):
            answer = web.Response(status=302, headers={"Location": "/"})
            answer.set_cookie(_COOKIE, self._token, httponly=True, samesite="Strict", path="/")
            return answer
        if not self._is_token(request.cookies.get(_COOKIE, "")):
            raise web.HTTPForbidden(text="open the address that `hpk top --browser` printed")
        return await handler(request)

    def _is_token(self, text: str) -> bool:
        return hmac.compare_digest(text.encode(), self._token.encode())
