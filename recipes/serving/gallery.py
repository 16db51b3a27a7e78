"""The folder of made videos: mp4 files, and a line of ``meta.jsonl`` for each."""

from __future__ import annotations

import json
import threading
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ...components.media import encode_png, enlarge, write_bytes, write_mp4
from ..errors import UserError
from .request import Request

META = "meta.jsonl"
NUM_SHOWN = 24


@dataclass(frozen=True)
class Made:
    """A made video.

    Args:
        file: The mp4 file.
        prompt: What was asked for.
        seed: Seed of the noise.
        steps: Steps of the sampler.
        guidance: Scale of the guidance; None: the model has no such setting.
        fps: Frames per second.
        first_frame: The PNG file of the frame that it was to begin with; None: there was none.
    """

    file: Path
    prompt: str
    seed: int
    steps: int
    guidance: float | None
    fps: float
    first_frame: Path | None = None


class Gallery:
    """Videos made before and now, in one folder. Names of files come from the clock and from chance, not from visitors.

    Args:
        folder: The folder; it is made. Videos that it lists already are shown.

    Raises:
        UserError: It cannot be written, or it holds other files, which a server should not give away.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self._lock = threading.Lock()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if not self.meta.is_file() and any(self.folder.iterdir()):
                raise UserError(f"{folder} holds other files, which the page would show to visitors: name a new folder")
            with self.meta.open("a", encoding="utf-8"):
                pass
            lines = self.meta.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError as error:
            raise UserError(f"{folder} cannot be written: {error.strerror}") from error
        self._made = [made for line in lines if (made := self._read(line)) is not None]

    @property
    def meta(self) -> Path:
        """The file that lists the videos."""
        return self.folder / META

    def newest(self) -> list[Made]:
        """The newest videos, the last first."""
        with self._lock:
            return self._made[: -NUM_SHOWN - 1 : -1]

    def add(self, video: Tensor, request: Request, record: dict[str, Any]) -> Made:
        """Write a video and its line.

        Args:
            video: uint8 ``[C, T, H, W]``.
            request: What was asked for.
            record: The rest of what is to be known of it: see `sampling_record`.
        """
        name = f"{time.strftime('%Y-%m-%d_%H%M%S')}_{uuid.uuid4().hex}"
        files = {"file": f"{name}.mp4"}
        write_mp4(self.folder / files["file"], enlarge(video), record["fps"])
        if request.first_frame is not None:
            files["first_frame"] = f"{name}.png"
            write_bytes(self.folder / files["first_frame"], encode_png(request.first_frame))
        known = files | {"prompt": request.prompt, "seed": request.seed} | record
        made = self._made_of(known)
        line = json.dumps(known, ensure_ascii=False)
        with self._lock:
            with self.meta.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
            self._made.append(made)
        return made

    def _read(self, line: str) -> Made | None:
        """The video of a line; None if the line is damaged or its file is gone."""
        try:
            made = self._made_of(json.loads(line))
        except (ValueError, KeyError, TypeError):
            return None
        return made if made.file.is_file() else None

    def _made_of(self, known: dict[str, Any]) -> Made:
        """The video that a line tells of; its files are in this folder, whatever the line says."""
        values = {name: known[name] for name in ("prompt", "seed", "steps", "guidance", "fps")}
        frame = self.folder / Path(known["first_frame"]).name if "first_frame" in known else None
        return Made(file=self.folder / Path(known["file"]).name, first_frame=frame, **values)
