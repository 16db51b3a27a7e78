import math
from fractions import Fraction

import av
import numpy as np
import pytest
import torch
from PIL import Image

from snapvideo.components.interfaces import VideoShape
from snapvideo.datamodules import decode as decoding
from snapvideo.datamodules.decode import _frames_at, extent_of, open_stream
from snapvideo.datamodules.samples import Unusable
from snapvideo.datamodules.sources import index_source

STEP = 4  # grey levels from frame to frame in the videos that `media` writes
SHAPE = VideoShape(num_frames=6, height=16, width=16)
BASE = np.zeros((32, 48, 3), np.uint8)  # upright: red and green above, blue and white below
BASE[:16, :24], BASE[:16, 24:], BASE[16:, :24], BASE[16:, 24:] = (255, 0, 0), (0, 255, 0), (0, 0, 255), 255


def random_picture(side):
    """A smooth one in colour ``[side, side, 3]``."""
    small = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC))


def decode_video(path, *arguments):
    with path.open("rb") as file:
        return decoding.decode_video(file, *arguments)


def decode_image(path, shape):
    with path.open("rb") as file:
        return decoding.decode_image(file, shape)


class At:
    """Stands in for a generator: the start is at this fraction of the possible, the frame rate the last possible."""

    def __init__(self, *fractions):
        self.fractions = list(fractions)

    def uniform(self, low, high):
        return low + (high - low) * (self.fractions.pop(0) if len(self.fractions) > 1 else self.fractions[0])

    def integers(self, number):
        return number - 1


def frame_numbers(clip):
    return torch.round(clip.video.float().mean(dim=(0, 2, 3)) / STEP).int().tolist()


def shown_at(times, starts):
    """Which frame of those that begin at `starts` is on show at each of `times`."""
    return [max((i for i, start in enumerate(starts) if start <= time + 1e-3), default=0) for time in times]


def quadrants(clip):
    """Which of the colours of `BASE` is in each quarter, row by row."""
    colours = np.array([(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)])
    pixels = clip.video[:, 0].permute(1, 2, 0).float().numpy()
    height, width = pixels.shape[:2]
    spots = [pixels[height * y // 4, width * x // 4] for y in (1, 3) for x in (1, 3)]
    return [int(np.abs(colours - spot).sum(1).argmin()) for spot in spots]


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.mov"])
@pytest.mark.parametrize("fps", [20, 13, 4.5])
@pytest.mark.parametrize("fraction", [0.0, 0.31, 0.77, 1.0])
def test_exact_frames_at_a_constant_rate(media, name, fps, fraction):
    starts = np.arange(40) / 20
    path = media.video(name, starts)
    clip = decode_video(path, SHAPE, [fps], At(fraction))
    begin = fraction * (2.0 - 5 / fps)
    assert frame_numbers(clip) == shown_at(begin + np.arange(6) / fps, starts)
    assert clip.fps == fps
    assert clip.video.dtype == torch.uint8 and clip.video.shape == (3, 6, 16, 16)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
@pytest.mark.parametrize("seed", range(4))
def test_exact_frames_at_a_variable_rate(media, name, seed):
    starts = np.concatenate([[0], np.random.default_rng(seed).integers(10, 150, 49).cumsum() / 1000])
    path = media.video(name, starts)
    for fraction in (0.0, 0.4, 0.9):
        clip = decode_video(path, SHAPE, [7], At(fraction))
        with av.open(path) as container:
            end = container.duration / av.time_base
        expected = shown_at(fraction * (end - 5 / 7) + np.arange(6) / 7, starts)
        assert frame_numbers(clip) == expected


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.mp4", {"codec": "libx264", "options": {"crf": "1", "x264-params": "keyint=7:open-gop=1:scenecut=0"}}),
        ("a.mp4", {"codec": "libx265", "options": {"crf": "1", "x265-params": "keyint=7:open-gop=1:log-level=none"}}),
        ("a.webm", {"codec": "libvpx-vp9", "options": {"lossless": "1", "g": "9"}}),
        ("a.avi", {"codec": "ffv1", "options": {"g": "9"}, "tick": Fraction(1, 20)}),
        ("a.mov", {"codec": "prores_ks", "pix_fmt": "yuv422p10le", "options": {}}),
    ],
)
def test_exact_frames_of_other_codecs(media, name, options):
    starts = np.arange(40) / 20
    path = media.video(name, starts, size=(64, 64), **options)
    for fraction in (0.0, 0.2, 0.5, 0.8):
        clip = decode_video(path, SHAPE, [10], At(fraction))
        begin = fraction * (2.0 - 5 / 10) + 1e-4
        assert frame_numbers(clip) == shown_at(begin + np.arange(6) / 10, starts)


def test_first_time_counts_from_the_first_frame(media):
    path = media.video("a.mp4", 3.0 + np.arange(40) / 20)
    assert frame_numbers(decode_video(path, SHAPE, [20], At(0.0))) == [0, 1, 2, 3, 4, 5]


def test_frame_rate_is_drawn_from_those_that_fit(media):
    path = media.video("a.mp4", np.arange(40) / 20)  # 2 s
    drawn = [decode_video(path, SHAPE, [24, 20, 5, 3, 2.4], np.random.default_rng(seed)).fps for seed in range(40)]
    assert set(drawn) == {20, 5, 3}


def test_start_is_drawn_from_all_that_fit(media):
    path = media.video("a.mp4", np.arange(40) / 20)
    firsts = [frame_numbers(decode_video(path, SHAPE, [10], np.random.default_rng(seed)))[0] for seed in range(80)]
    assert min(firsts) <= 1 and max(firsts) >= 28 and len(set(firsts)) > 15


def test_same_draws_same_pixels(media):
    path = media.video("a.mp4")
    first, again = (decode_video(path, SHAPE, [20, 10, 5], np.random.default_rng(7)) for _ in range(2))
    assert first.fps == again.fps and first.video.equal(again.video)


@pytest.mark.parametrize("rotation", [0, 90, -90, 180])
def test_rotation_flag(media, rotation):
    """A flag of -90 means: turn the stored frame by 90 degrees clockwise to see it upright."""
    stored = np.ascontiguousarray(np.rot90(BASE, -rotation // 90))
    path = media.video("a.mp4", size=stored.shape[:2], frame=stored, rotation=rotation)
    clip = decode_video(path, VideoShape(2, 16, 24), [20], At(0.0))
    assert quadrants(clip) == [0, 1, 2, 3]
    assert clip.resolution == (32, 48)


def test_pixels_that_are_not_square(media):
    stored = BASE[:, ::2]
    path = media.video("a.mp4", size=stored.shape[:2], frame=np.ascontiguousarray(stored), aspect=Fraction(2))
    clip = decode_video(path, VideoShape(2, 16, 24), [20], At(0.0))
    assert clip.resolution == (32, 48)
    assert quadrants(clip) == [0, 1, 2, 3]


@pytest.mark.parametrize("size", [(16, 24), (64, 16), (16, 64), (96, 96), (33, 49)])
def test_any_size_is_covered_from_the_centre(media, size):
    clip = decode_video(media.video("a.mp4", frame=BASE), VideoShape(2, *size), [20], At(0.0))
    assert clip.video.shape == (3, 2, *size)
    assert quadrants(clip) == [0, 1, 2, 3]
    image = media.path("b.png", None)
    Image.fromarray(BASE).save(image)
    assert quadrants(decode_image(image, VideoShape(2, *size))) == [0, 1, 2, 3]


def test_odd_sizes_of_the_original(media):
    path = media.video("a.mp4", size=(27, 35), pix_fmt="yuv444p")
    clip = decode_video(path, SHAPE, [20], At(0.0))
    assert clip.resolution == (27, 35) and frame_numbers(clip) == [0, 1, 2, 3, 4, 5]


def test_videos_and_images_have_the_same_colours(media):
    frame = random_picture(128)
    path = media.video("a.mp4", size=(128, 128), frame=frame, pix_fmt="yuv444p", options={"crf": "1"})
    still = media.path("a.png", None)
    Image.fromarray(frame).save(still)
    for side in (16, 64):
        shape = VideoShape(2, side, side)
        video, image = decode_video(path, shape, [20], At(0.0)).video[:, 0], decode_image(still, shape).video[:, 0]
        assert (video.float() - image.float()).abs().mean() < 1.5
        assert (video.float() - image.float()).mean(dim=(1, 2)).abs().max() < 0.5


def test_full_range_is_not_stretched(media):
    for level in (0, 10, 128, 245, 255):
        frame = np.full((32, 48, 3), level, np.uint8)
        path = media.video("a.mp4", frame=frame, pix_fmt="yuvj420p")
        assert decode_video(path, SHAPE, [20], At(0.0)).video.float().mean().item() == pytest.approx(level, abs=1.5)


def test_shrinking_averages(media):
    frame = np.indices((128, 128)).sum(0)[..., None].repeat(3, -1).astype(np.uint8) % 2 * 255
    video = decode_video(media.video("a.mp4", size=(128, 128), frame=frame), SHAPE, [20], At(0.0)).video
    still = media.path("a.png", None)
    Image.fromarray(frame).save(still)
    for pixels in (video, decode_image(still, SHAPE).video):
        assert pixels.float().mean().item() == pytest.approx(127.5, abs=2) and pixels.float().std() < 3


def test_gif(media):
    path = media.path("a.gif", None)
    frames = [Image.new("L", (48, 32), STEP * i) for i in range(30)]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=100)
    for fraction in (0.0, 0.5):
        begin = fraction * (3.0 - 5 / 5)
        expected = shown_at(begin + np.arange(6) / 5, np.arange(30) / 10)
        assert frame_numbers(decode_video(path, SHAPE, [5], At(fraction))) == expected


class Pipe:
    """What a container is written to that cannot go back and fill in its length."""

    def __init__(self):
        self.written = bytearray()

    def write(self, data):
        self.written += data
        return len(data)


def test_file_that_does_not_say_how_long_it_is(media):
    pipe = Pipe()
    copy_stream(media.video("a.webm", codec="libvpx-vp9", options={"lossless": "1"}), pipe, format="webm")
    path = media.broken("b.webm", bytes(pipe.written))
    with av.open(path) as container:
        assert container.duration is None and container.streams.video[0].duration is None
    for fraction in (0.0, 0.6, 1.0):
        begin = fraction * (2.0 - 5 / 10)
        expected = shown_at(begin + np.arange(6) / 10, np.arange(40) / 20)
        assert frame_numbers(decode_video(path, SHAPE, [10], At(fraction))) == expected


def test_file_that_says_it_is_longer_is_read_again(media):
    path = media.video("a.webm", codec="libvpx-vp9", options={"lossless": "1"}, audio=4.0)
    with av.open(path) as container:
        assert container.duration == pytest.approx(4e6, rel=0.02)
    assert frame_numbers(decode_video(path, SHAPE, [20], At(0.9, 0.0))) == [0, 1, 2, 3, 4, 5]
    with pytest.raises(Unusable, match=r"too short: 2\.0. s at .* need 2\.50 s at 2"):
        decode_video(path, SHAPE, [2], At(0.5))


@pytest.mark.parametrize(
    ("num_frames", "fps", "message"),
    [
        (40, [20], None),
        (41, [20], None),  # the last frame is on show until 2 s
        (42, [20], r"too short: 2\.00 s at 20\.00 frames per second; 42 frames need 2\.05 s at 20"),
        (6, [24, 2.4], r"too short: .*; 6 frames need 2\.08 s at 2\.4"),
        (6, [24, 30], r"frame rate too low: 20\.00 frames per second; 24 or more are needed"),
        (1, [1], None),
    ],
)
def test_videos_that_are_too_short_or_too_slow(media, num_frames, fps, message):
    path = media.video("a.mp4", np.arange(40) / 20)
    if message is None:
        assert decode_video(path, VideoShape(num_frames, 8, 8), fps, At(0.0)).video.shape[1] == num_frames
    else:
        with pytest.raises(Unusable, match=message):
            decode_video(path, VideoShape(num_frames, 8, 8), fps, At(0.0))


def test_video_of_one_frame(media):
    path = media.video("a.mp4", [0.0])
    with pytest.raises(Unusable, match="too short"):
        decode_video(path, SHAPE, [20, 4], At(0.0))


def unusable(path, decode=decode_video):
    with pytest.raises(Unusable) as caught:
        _ = decode(path, SHAPE, [20], At(0.5)) if decode is decode_video else decode(path, SHAPE)
    return str(caught.value).split(":")[0]


def test_files_that_are_no_videos(media):
    whole = media.video("whole.mp4").read_bytes()
    assert unusable(media.broken("empty.mp4")) == "corrupt"
    assert unusable(media.broken("text.mp4", b"no video at all\n" * 50)) == "corrupt"
    assert unusable(media.broken("cut.mp4", whole[: len(whole) // 2])) == "corrupt"
    image = media.image("image.png")
    image.rename(media.folder / "image.mp4")
    assert unusable(media.folder / "image.mp4") == "too short"
    with av.open(media.folder / "sound.mkv", "w") as container:
        stream = container.add_stream("libopus", rate=48000, layout="mono")
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 960), np.int16), format="s16", layout="mono")
        sound.rate = 48000
        container.mux(stream.encode(sound))
        container.mux(stream.encode(None))
    assert unusable(media.folder / "sound.mkv") == "no video stream"


def copy_stream(source, target, **options):
    """The video of one file in another container."""
    with av.open(source) as old, av.open(target, "w", **options) as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                new.mux(packet)


def test_video_cut_off_with_its_index_in_front(media):
    """A download that broke off: what is there is used, what is not has a reason."""
    path = media.folder / "front.mp4"
    copy_stream(media.video("a.mp4"), path, options={"movflags": "faststart"})
    with av.open(path) as container:
        packet = [packet for packet in container.demux(video=0) if packet.pos][25]
    cut = media.broken("cut.mp4", path.read_bytes()[: packet.pos + packet.size // 2])
    assert frame_numbers(decode_video(cut, SHAPE, [20], At(0.0))) == [0, 1, 2, 3, 4, 5]
    try:
        numbers = frame_numbers(decode_video(cut, SHAPE, [20], At(1.0)))
    except Unusable as error:
        assert str(error).startswith("corrupt")
    else:
        assert numbers == list(range(numbers[0], numbers[0] + 6)) and numbers[-1] <= 25


def test_damaged_files_never_raise_anything_else(media):
    """Bytes changed at random give a clip or a reason."""
    rng = np.random.default_rng(0)
    still = media.path("a.jpg", None)
    Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(still, exif=exif(6))
    sources = {media.video("a.mp4"): decode_video, media.image("b.png"): decode_image, still: decode_image}
    for path, decode in sources.items():
        whole = np.frombuffer(path.read_bytes(), np.uint8)
        for _ in range(30):
            content = whole.copy()
            content[rng.integers(0, len(whole), 20)] = rng.integers(0, 256, 20)
            damaged = media.broken("damaged" + path.suffix, content.tobytes())
            try:
                clip = decode(damaged, SHAPE, [20], At(0.5)) if decode is decode_video else decode(damaged, SHAPE)
            except Unusable:
                continue
            assert clip.video.shape[2:] == (16, 16)


def exif(orientation):
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(media, suffix, orientation):
    stored = {
        1: BASE,
        2: np.fliplr(BASE),
        3: np.rot90(BASE, 2),
        4: np.flipud(BASE),
        5: BASE.transpose(1, 0, 2),
        6: np.rot90(BASE, 1),
        7: np.rot90(BASE, 2).transpose(1, 0, 2),
        8: np.rot90(BASE, -1),
    }[orientation]
    path = media.path("a" + suffix, None)
    Image.fromarray(np.ascontiguousarray(stored)).save(path, exif=exif(orientation))
    clip = decode_image(path, VideoShape(2, 16, 24))
    assert quadrants(clip) == [0, 1, 2, 3]
    assert clip.resolution == (32, 48)


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_exif_orientation_that_is_none_is_ignored(media, orientation):
    path = media.path("a.jpg", None)
    Image.fromarray(BASE).save(path, exif=exif(orientation))
    clip = decode_image(path, VideoShape(2, 16, 24))
    assert clip.video.shape == (3, 1, 16, 24)
    assert clip.resolution == (32, 48)


def test_image_is_one_frame_at_an_infinite_rate(media):
    clip = decode_image(media.image("a.jpg", level=77), SHAPE)
    assert clip.video.shape == (3, 1, 16, 16) and clip.video.dtype == torch.uint8
    assert clip.video.float().mean().item() == pytest.approx(77, abs=1)
    assert clip.fps == math.inf and clip.resolution == (40, 60)


def transparent_palette():
    image = Image.new("P", (20, 20), 1)
    image.putpalette([200, 0, 0, 0, 200, 0])
    image.paste(0, (0, 0, 10, 20))
    image.info["transparency"] = 0
    return image


@pytest.mark.parametrize(
    ("image", "suffix", "left", "right"),
    [
        (Image.new("L", (20, 20), 90), ".png", (90, 90, 90), (90, 90, 90)),
        (Image.new("1", (20, 20), 1), ".png", (255, 255, 255), (255, 255, 255)),
        (Image.new("LA", (20, 20), (40, 0)), ".png", (255, 255, 255), (255, 255, 255)),
        (Image.new("RGBA", (20, 20), (0, 0, 0, 51)), ".png", (204, 204, 204), (204, 204, 204)),
        (Image.new("RGBA", (20, 20), (0, 0, 0, 0)), ".webp", (255, 255, 255), (255, 255, 255)),
        (transparent_palette(), ".png", (255, 255, 255), (0, 200, 0)),
        (Image.fromarray(np.full((20, 20), 257 * 171, np.uint16)), ".png", (171, 171, 171), (171, 171, 171)),
        (Image.new("RGB", (20, 20), (200, 30, 90)).convert("CMYK"), ".jpg", (200, 30, 90), (200, 30, 90)),
        (Image.new("RGB", (2, 3), (10, 20, 30)), ".png", (10, 20, 30), (10, 20, 30)),
        (Image.new("RGB", (900, 2), (10, 20, 30)), ".png", (10, 20, 30), (10, 20, 30)),
    ],
)
def test_kinds_of_images(media, image, suffix, left, right):
    path = media.path("a" + suffix, None)
    image.save(path)
    pixels = decode_image(path, SHAPE).video[:, 0].float()
    assert pixels[:, 8, 2].tolist() == pytest.approx(left, abs=2)
    assert pixels[:, 8, 13].tolist() == pytest.approx(right, abs=2)


def test_large_jpegs_are_decoded_small_but_right(media):
    big = Image.fromarray(random_picture(1201))
    path, lossless = media.path("a.jpg", None), media.path("a.png", None)
    big.save(path, quality=95)
    big.save(lossless)
    shape = VideoShape(1, 48, 64)
    difference = decode_image(path, shape).video.float() - decode_image(lossless, shape).video.float()
    assert difference.abs().mean() < 0.5 and difference.abs().max() < 5


def test_animated_image_shows_its_first_frame(media):
    path = media.path("a.webp", None)
    frames = [Image.new("RGB", (20, 20), (level,) * 3) for level in (50, 200)]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=100)
    assert decode_image(path, SHAPE).video.float().mean().item() == pytest.approx(50, abs=2)


def test_files_that_are_no_images(media):
    whole = media.image("a.jpg", size=(200, 200)).read_bytes()
    assert unusable(media.broken("empty.jpg"), decode_image) == "corrupt"
    assert unusable(media.broken("text.jpg", b"no image"), decode_image) == "corrupt"
    assert unusable(media.broken("cut.jpg", whole[:-200]), decode_image) == "corrupt"


@pytest.mark.parametrize("limit", [2000, 1000])  # above the limit, and above twice the limit
def test_huge_files_are_refused_unopened(media, monkeypatch, limit):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    assert unusable(media.image("a.png", size=(40, 60)), decode_image) == "too large"
    assert unusable(media.video("a.mp4", size=(40, 60))) == "too large"


@pytest.mark.slow
def test_real_videos_give_what_decoding_from_the_beginning_gives(real_data):
    for sample in index_source(real_data / "videos", "video").samples:
        path = real_data / "videos" / sample.key
        with av.open(path) as container:
            whole = {frame.time: luma(frame) for frame in container.decode(container.streams.video[0])}
        starts = sorted(whole)
        times = starts[0] + 0.6 * (starts[-1] - starts[0]) + np.arange(8) / 12
        with av.open(path) as container:
            stream = open_stream(container)
            extent = extent_of(container, stream)
            frames, _ = _frames_at(container, stream, extent, times, lambda frame: (frame.time, luma(frame)))
        assert [time for time, _ in frames] == [starts[i] for i in shown_at(times, starts)], sample.key
        assert all(whole[time] == pixels for time, pixels in frames), sample.key
        clip = decode_video(path, SHAPE, [8], np.random.default_rng(0))
        assert clip.video.shape == (3, 6, 16, 16) and clip.video.float().std() > 5, sample.key


def luma(frame):
    plane = frame.planes[0]
    return np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[:, : plane.width].tobytes()


def test_real_images(real_data):
    for sample in index_source(real_data / "images", "image").samples:
        clip = decode_image(real_data / "images" / sample.key, VideoShape(1, 48, 64))
        assert clip.video.shape == (3, 1, 48, 64) and clip.video.float().std() > 5, sample.key
