import io

import numpy as np
import pytest
import torch
from PIL import Image

from snapvideo.components.interfaces import VideoShape
from snapvideo.recipes.errors import UserError
from snapvideo.recipes.serving import first_frame
from snapvideo.recipes.serving.first_frame import begin_with, read_first_frame

SHAPE = VideoShape(3, 8, 16)


def test_an_image_is_fitted(tmp_path):
    pixels = np.zeros((40, 40, 3), np.uint8)
    pixels[6:34] = (250, 100, 5)  # 10:30 is what a video twice as wide as high keeps
    Image.fromarray(pixels).save(tmp_path / "x.png")
    frame = read_first_frame(tmp_path / "x.png", SHAPE)
    assert frame.shape == (3, 8, 16) and frame.dtype == torch.uint8
    assert (frame == torch.tensor([250, 100, 5])[:, None, None]).all()
    Image.fromarray(frame.permute(1, 2, 0).numpy()).save(tmp_path / "again.png")
    assert torch.equal(read_first_frame(tmp_path / "again.png", SHAPE), frame)


@pytest.mark.parametrize("content", [b"", b"text", b"\x89PNG\r\n\x1a\n cut", b"<svg/>"])
def test_what_is_no_image_is_refused_without_names_of_files(tmp_path, content):
    (tmp_path / "x.png").write_bytes(content)
    with pytest.raises(UserError, match=r"cannot be used \(corrupt\)") as refused:
        read_first_frame(tmp_path / "x.png", SHAPE)
    assert str(tmp_path) not in str(refused.value)


def test_an_image_cut_short_is_refused(tmp_path):
    with io.BytesIO() as file:
        Image.effect_noise((64, 64), 50).save(file, "PNG")
        (tmp_path / "x.png").write_bytes(file.getvalue()[:1000])
    with pytest.raises(UserError, match="corrupt"):
        read_first_frame(tmp_path / "x.png", SHAPE)


def test_other_formats_are_refused_before_they_are_decoded(tmp_path):
    """Pillow reads some by starting a program."""
    Image.new("RGB", (8, 8)).save(tmp_path / "x.png", "EPS")
    with pytest.raises(UserError, match="is EPS: it can be PNG"):
        read_first_frame(tmp_path / "x.png", SHAPE)


def test_many_pixels_in_a_small_file_are_refused_by_its_header(tmp_path, monkeypatch):
    monkeypatch.setattr(first_frame, "decode_image", lambda *_: pytest.fail("it was decoded"))
    Image.new("1", (9000, 9000)).save(tmp_path / "x.png")
    assert (tmp_path / "x.png").stat().st_size < 2e5
    with pytest.raises(UserError, match=r"9000 × 9000 pixels: .* up to 50 million"):
        read_first_frame(tmp_path / "x.png", SHAPE)
    Image.new("1", (14000, 14000)).save(tmp_path / "x.png")
    with pytest.raises(UserError, match=r"\(too large\)"):
        read_first_frame(tmp_path / "x.png", SHAPE)


def test_a_file_that_is_gone(tmp_path):
    with pytest.raises(UserError, match="upload it again"):
        read_first_frame(tmp_path / "x.png", SHAPE)


def test_the_other_frames_are_free():
    frame = torch.full((3, 8, 16), 255, dtype=torch.uint8)
    denoise = begin_with(frame, SHAPE)(lambda x, sigma: 0 * x + 0.25)
    clean = denoise(torch.zeros(1, *SHAPE), torch.ones(1))
    assert (clean[:, :, 0] == 1).all() and (clean[:, :, 1:] == 0.25).all()
