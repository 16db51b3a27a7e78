"""Starts the page: on this machine alone unless asked, without telemetry, without a public link."""

from __future__ import annotations

import os
import signal
import socket
import sys
import tempfile
import threading
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from ..errors import UserError
from .gallery import Gallery, Made
from .jobs import Jobs, Report
from .maker import VideoMaker
from .request import Limits, Request

LOOPBACK = ("127.0.0.1", "localhost", "::1")
"""Names of this machine that no other reaches it by."""


def check_serving(host: str, port: int) -> None:
    """Refuse, before a model is loaded, what would fail after it.

    Args:
        host: Address to listen at.
        port: Port to listen at.

    Raises:
        UserError: Gradio is not installed, or the address cannot be used.
    """
    if find_spec("gradio") is None:
        raise UserError("the page needs Gradio, which is not installed: pip install 'snapvideo[serve]'")
    if not 0 < port < 2**16:
        raise UserError(f"--port {port}: it must be 1 to 65535")
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
    except OSError as error:
        raise UserError(f"--host {host} --port {port} cannot be used: {error}; another --port may be free") from error


def serve(maker: VideoMaker, gallery: Gallery, limits: Limits, host: str, port: int) -> None:
    """Show the page until SIGINT or SIGTERM.

    Args:
        maker: Makes the videos.
        gallery: Keeps them.
        limits: What may be asked.
        host: Address to listen at; any but this machine's own is open to others.
        port: Port to listen at.

    Raises:
        UserError: The address cannot be used any more.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    jobs = Jobs(partial(_make, maker, gallery), limits.max_waiting)
    with tempfile.TemporaryDirectory(prefix="snapvideo-") as uploads:
        # Gradio reads these when it is imported.
        os.environ |= {"GRADIO_TEMP_DIR": uploads, "GRADIO_ANALYTICS_ENABLED": "False"}
        from .launch import launch
        from .page import Page

        blocks = Page(maker, gallery, jobs, limits).blocks
        try:
            url = launch(blocks, gallery, limits, host, port, LOOPBACK if host in LOOPBACK else None)
            if host not in LOOPBACK:
                print(
                    f"warning: --host {host} opens the page to everybody who reaches this machine; it has no password",
                    file=sys.stderr,
                )
            inside = gallery.folder.is_relative_to(Path.cwd())
            near = os.path.relpath(gallery.folder) if inside else gallery.folder
            print(f"page: {url} (Ctrl-C ends it)\nvideos: {near}", flush=True)
            threading.Event().wait()
        except KeyboardInterrupt:
            print("closing the page")
        finally:
            jobs.close()
            blocks.close(verbose=False)


def _make(maker: VideoMaker, gallery: Gallery, request: Request, report: Report) -> Made:
    video, record = maker.make(request, report)
    return gallery.add(video, request, record)
