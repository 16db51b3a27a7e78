import io
from fractions import Fraction

import av
import numpy as np
import pytest
import torch
from PIL import Image

from snapvideo.components import media
from snapvideo.components.media import (
    contact_sheet,
    encode_gif,
    encode_png,
    enlarge,
    grid,
    shrink,
    to_uint8,
    write_bytes,
    write_mp4,
)


def smooth_video(num_frames=12, height=48, width=64):
    """Colours that change slowly in space and time, uint8 ``[C, T, H, W]``."""
    t, y, x = torch.meshgrid(torch.arange(num_frames), torch.arange(height), torch.arange(width), indexing="ij")
    waves = [torch.sin(x / 17 + t / 9), torch.cos(y / 13 - t / 7), torch.sin((x + y) / 21 + 1)]
    return torch.stack(waves).mul(100).add(128).to(torch.uint8)


def psnr(a, b):
    return 10 * np.log10(255**2 / np.mean((a.astype(float) - b.astype(float)) ** 2))


def read_mp4(path):
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        facts = {
            "codec": stream.codec_context.name,
            "pix_fmt": stream.codec_context.pix_fmt,
            "fps": stream.average_rate,
            "seconds": container.duration / av.time_base,
        }
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]), facts


def read_gif(data):
    image, frames, durations = Image.open(io.BytesIO(data)), [], []
    for index in range(image.n_frames):
        image.seek(index)
        frames.append(np.array(image.convert("RGB")))
        durations.append(image.info["duration"])
    return np.stack(frames), durations, image.info.get("loop")


def frames_last(video):
    return video.permute(1, 2, 3, 0).numpy()


def test_mp4_is_what_browsers_play(tmp_path):
    video = smooth_video()
    write_mp4(tmp_path / "new" / "a.mp4", video, fps=8)
    frames, facts = read_mp4(tmp_path / "new" / "a.mp4")
    assert facts == {"codec": "h264", "pix_fmt": "yuv420p", "fps": Fraction(8), "seconds": 1.5}
    assert psnr(frames, frames_last(video)) > 35
    data = (tmp_path / "new" / "a.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat"), "the index must come first"
    assert [path.name for path in tmp_path.rglob("*.*")] == ["a.mp4"]


@pytest.mark.parametrize("colour", [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (10, 10, 10), (128, 64, 200)])
def test_mp4_keeps_colours(tmp_path, colour):
    video = np.broadcast_to(np.uint8(colour), (2, 32, 32, 3))
    write_mp4(tmp_path / "a.mp4", video, fps=8)
    frames, _ = read_mp4(tmp_path / "a.mp4")
    assert np.abs(frames.astype(int) - colour).max() <= 4


def test_mp4_takes_arrays_and_loops(tmp_path):
    video = frames_last(smooth_video(5))
    write_mp4(tmp_path / "a.mp4", video, fps=29.97, loops=3)
    frames, facts = read_mp4(tmp_path / "a.mp4")
    assert len(frames) == 15 and float(facts["fps"]) == pytest.approx(29.97, abs=1e-3)
    assert psnr(frames, np.concatenate([video] * 3)) > 35


def test_mp4_pads_odd_sizes_by_repeating_the_edge(tmp_path):
    video = smooth_video(4, 33, 47)
    write_mp4(tmp_path / "a.mp4", video, fps=8)
    frames, _ = read_mp4(tmp_path / "a.mp4")
    assert frames.shape == (4, 34, 48, 3)
    assert psnr(frames[:, :33, :47], frames_last(video)) > 35
    assert psnr(frames[:, 33], frames[:, 32]) > 30 and psnr(frames[:, :, 47], frames[:, :, 46]) > 30


@pytest.mark.parametrize("size", [(33, 47), (7, 20), (300, 301)])
def test_a_video_comes_back_from_its_file(tmp_path, size):
    video = smooth_video(3, *size)
    assert torch.equal(shrink(enlarge(video), *size), video)
    write_mp4(tmp_path / "a.mp4", enlarge(video), fps=8)
    read = media.read_mp4(tmp_path / "a.mp4")
    assert np.array_equal(frames_last(read), read_mp4(tmp_path / "a.mp4")[0])
    assert psnr(shrink(read, *size).numpy(), video.numpy()) > 35


def test_mp4_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    write_bytes(tmp_path / "a.mp4", b"old")
    monkeypatch.setattr("snapvideo.components.media.av.VideoFrame", None)
    with pytest.raises(AttributeError):
        write_mp4(tmp_path / "a.mp4", smooth_video(), fps=8)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]


@pytest.mark.parametrize("fps", [8, 24, 12.5, 0.5])
def test_gif_lasts_as_long_as_it_should(fps):
    frames, durations, loop = read_gif(encode_gif(smooth_video(), fps))
    assert len(frames) == 12 and loop == 0
    assert all(abs(duration - 1000 / fps) <= 10 for duration in durations)
    assert sum(durations) == pytest.approx(12 * 1000 / fps, abs=10)


def test_gif_is_never_so_fast_that_browsers_slow_it_down():
    _, durations, _ = read_gif(encode_gif(smooth_video(), fps=120))
    assert durations == [20] * 12


def test_gif_looks_like_the_video():
    video = smooth_video()
    frames, _, _ = read_gif(encode_gif(video, 8))
    assert psnr(frames, frames_last(video)) > 28
    few_colours = video // 128 * 255
    frames, _, _ = read_gif(encode_gif(few_colours, 8))
    assert np.array_equal(frames, frames_last(few_colours))


@pytest.mark.parametrize("num_frames", [1, 4])
def test_gif_of_a_still_video_keeps_its_frames(num_frames):
    still = smooth_video(1).expand(-1, num_frames, -1, -1)
    frames, _, _ = read_gif(encode_gif(still, 8))
    assert len(frames) == num_frames


def test_png_is_exact():
    image = smooth_video(1)[:, 0]
    data = np.array(Image.open(io.BytesIO(encode_png(image))))
    assert np.array_equal(data, image.permute(1, 2, 0).numpy())


def test_one_channel_is_shown_as_grey():
    image = smooth_video(1)[:1, 0]
    data = np.array(Image.open(io.BytesIO(encode_png(image))))
    assert data.shape == (48, 64, 3) and np.array_equal(data[..., 0], image[0].numpy())


def test_to_uint8_inverts_the_scaling_of_batches_and_clamps():
    pixels = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_uint8(pixels.float() / 127.5 - 1), pixels)
    assert to_uint8(torch.tensor([-7.0, 7.0], requires_grad=True)).tolist() == [0, 255]
    assert to_uint8(torch.zeros(2, dtype=torch.bfloat16)).tolist() == [128, 128]


@pytest.mark.parametrize(("size", "expected"), [((32, 32), 256), ((36, 64), 288), ((300, 400), 300), ((255, 300), 510)])
def test_enlarge_repeats_pixels_a_whole_number_of_times(size, expected):
    video = torch.randint(0, 256, (3, 2, *size), dtype=torch.uint8)
    large = enlarge(video, 256)
    factor = expected // size[0]
    assert large.shape == (3, 2, size[0] * factor, size[1] * factor)
    assert torch.equal(large[..., ::factor, ::factor], video)
    assert torch.equal(large[..., factor - 1 :: factor, factor - 1 :: factor], video)


def test_grid_places_videos_row_by_row():
    videos = torch.stack([torch.full((3, 2, 4, 6), value, dtype=torch.uint8) for value in (10, 20, 30, 40, 50)])
    joined = grid(videos, columns=3, pad=2)
    assert joined.shape == (3, 2, 2 * 4 + 3 * 2, 3 * 6 + 4 * 2)
    for index, value in enumerate((10, 20, 30, 40, 50)):
        top, left = 2 + index // 3 * 6, 2 + index % 3 * 8
        assert (joined[:, :, top : top + 4, left : left + 6] == value).all()
    assert (joined == 128).sum() == joined.numel() - 5 * videos[0].numel(), "the rest is grey"


def test_grid_without_pad_is_the_video():
    videos = smooth_video()[None]
    assert torch.equal(grid(videos, columns=1, pad=0), videos[0])


def test_contact_sheet_has_a_row_per_video_and_frames_in_order():
    frames = torch.arange(15, dtype=torch.uint8).mul(10).reshape(1, 1, 15, 1, 1)
    videos = torch.cat([frames, frames + 1]).expand(2, 3, 15, 4, 4)
    sheet = contact_sheet(videos, columns=8, pad=1)
    assert sheet.shape == (3, 2 * 5 + 1, 8 * 5 + 1)
    assert sheet[0, 2, 2::5].tolist() == [0, 20, 40, 60, 80, 100, 120, 140]
    assert sheet[2, 7, 2::5].tolist() == [1, 21, 41, 61, 81, 101, 121, 141]
    assert contact_sheet(videos[:, :, :3], columns=8, pad=0).shape == (3, 8, 12), "no more columns than frames"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda path: write_mp4(path, smooth_video().float(), 8), "to_uint8"),
        (lambda path: write_mp4(path, smooth_video()[:, 0], 8), r"\[C, T, H, W\]"),
        (lambda path: write_mp4(path, smooth_video()[:, :0], 8), "not empty"),
        (lambda path: write_mp4(path, smooth_video(), 0), "fps is 0"),
        (lambda path: write_mp4(path, smooth_video(), float("inf")), "fps is inf"),
        (lambda path: write_mp4(path, smooth_video(), 8, loops=0), "loops is 0"),
        (lambda path: encode_gif(smooth_video(), float("nan")), "fps is nan"),
        (lambda path: encode_gif(smooth_video()[:2], 8), "2 channels"),
        (lambda path: grid(smooth_video()[None], 0), "columns is 0"),
        (lambda path: contact_sheet(smooth_video()[None].float()), "to_uint8"),
    ],
)
def test_what_cannot_be_shown_is_refused(tmp_path, call, message):
    with pytest.raises(ValueError, match=message):
        call(tmp_path / "a.mp4")
    assert not list(tmp_path.iterdir())
