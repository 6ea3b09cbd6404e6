"""Serves the folder of a page on this machine."""

from __future__ import annotations

import functools
import http.server

# Browsers allow threads to a page only if it is isolated from others.
HEADERS = {"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp"}
TYPES = {".js": "text/javascript", ".wasm": "application/wasm", ".json": "application/json"}


def make_server(folder: str, port: int) -> http.server.ThreadingHTTPServer:
    """Returns a server of a folder on localhost, with the headers that threads need. Raises OSError."""
    return http.server.ThreadingHTTPServer(("127.0.0.1", port), functools.partial(_Handler, directory=folder))


class _Handler(http.server.SimpleHTTPRequestHandler):
    extensions_map = {**http.server.SimpleHTTPRequestHandler.extensions_map, **TYPES}

    def end_headers(self) -> None:
        for name, value in {**HEADERS, "Cache-Control": "no-cache"}.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, *_: object) -> None:
        pass
