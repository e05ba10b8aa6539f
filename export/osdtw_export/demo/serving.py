"""A folder of pages, looked at on this machine alone."""

from __future__ import annotations

import http.server
from pathlib import Path
from typing import Any


class _Handler(http.server.SimpleHTTPRequestHandler):
    """Says of every file what it is; what the system believes of .js and .wasm may be wrong."""

    extensions_map = {  # noqa: RUF012
        ".html": "text/html",
        ".css": "text/css",
        ".js": "text/javascript",
        ".mjs": "text/javascript",
        ".json": "application/json",
        ".wasm": "application/wasm",
        ".svg": "image/svg+xml",
        ".png": "image/png",
        "": "application/octet-stream",
    }

    def log_message(self, *args: Any) -> None:
        """Say nothing of every request."""


def server(folder: Path, port: int = 0) -> http.server.ThreadingHTTPServer:
    """A web server for this machine alone; it runs when told to.

    Args:
        folder: What it serves.
        port: Its port; 0 for a free one.

    Returns:
        The server, bound to the loopback address.

    Raises:
        ValueError: If the port is taken or forbidden.
    """

    def handler(*args: Any) -> _Handler:
        return _Handler(*args, directory=str(folder))

    try:
        return http.server.ThreadingHTTPServer(("127.0.0.1", port), handler)
    except (OSError, OverflowError) as error:
        raise ValueError(f"Port {port} cannot be used ({error}); choose another one with --serve.") from error


def address(running: http.server.ThreadingHTTPServer) -> str:
    """Where browsers find it."""
    return f"http://localhost:{running.server_port}/"
