"""How Gradio is told to show the page and nothing more."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import gradio
from gradio.themes import Base
from starlette.middleware import Middleware

from ..errors import UserError
from .gallery import Gallery
from .guard import Guard
from .request import Limits

CSS = Path(__file__).with_name("page.css")
FONTS = ["system-ui", "sans-serif"]


def launch(
    blocks: gradio.Blocks, gallery: Gallery, limits: Limits, host: str, port: int, hosts: Collection[str] | None
) -> str:
    """Start the server in a thread of its own.

    Args:
        blocks: The page.
        gallery: Its folder is the only one that is served.
        limits: What may be asked.
        host: Address to listen at.
        port: Port to listen at.
        hosts: See `Guard`.

    Returns:
        Where the page is.

    Raises:
        UserError: The address cannot be used.
    """
    gradio.set_static_paths([gallery.folder])  # else Gradio keeps a copy of each video
    megabyte = 2**20
    theme = Base(font=FONTS, font_mono=["ui-monospace", "monospace"], primary_hue="indigo")
    theme.set(body_text_color_subdued="*neutral_600", body_text_color_subdued_dark="*neutral_400")  # contrast
    guard = Middleware(Guard, hosts=hosts, max_body=(limits.max_upload + 1) * megabyte)
    try:
        _, url, _ = blocks.launch(
            server_name=host,
            server_port=port,
            share=False,
            inbrowser=False,
            prevent_thread_lock=True,
            quiet=True,
            footer_links=[],
            run_history=False,
            enable_monitoring=False,
            ssr_mode=False,
            pwa=False,
            mcp_server=False,
            allowed_paths=[str(gallery.folder)],
            blocked_paths=[str(gallery.meta)],
            max_file_size=limits.max_upload * megabyte,
            app_kwargs={"middleware": [guard], "docs_url": None, "redoc_url": None, "openapi_url": None},
            theme=theme,
            css_paths=CSS,
        )
    except OSError as error:
        raise UserError(f"--host {host} --port {port} cannot be used: another program took it just now") from error
    return url
