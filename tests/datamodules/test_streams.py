"""Shards over http and through pipes: nobody sees what another sees, and a broken stream is named and survived."""

import http.server
import json
import shutil
import threading
from functools import partial
from itertools import islice

import pytest

from snapvideo.components.interfaces import VideoShape
from snapvideo.datamodules import JointData, Source
from snapvideo.datamodules.clips import Reader
from snapvideo.datamodules.pack import make_plan, write_shards
from snapvideo.datamodules.samples import NothingUsable
from snapvideo.datamodules.streams import StreamedClips

SHAPE = VideoShape(num_frames=4, height=8, width=8)
READER = Reader(SHAPE, fps=[10.0], manifest=None, seconds=60.0)
needs_curl = pytest.mark.skipif(not shutil.which("curl"), reason="WebDataset reads http by curl, which is not there")


@pytest.fixture(scope="module")
def shards(files, tmp_path_factory):
    out = tmp_path_factory.mktemp("shards")
    write_shards(make_plan(files, 9000), out, workers=1)
    return out


@pytest.fixture
def server(shards):
    """Where the shards are served; of ``cut.tar`` half arrives."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_GET(self):
            if self.path != "/cut.tar":
                return super().do_GET()
            data = (shards / "shard-000000.tar").read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data[: len(data) // 2 + 100])

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(shards))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def names(shards):
    count = len(list(shards.glob("*.tar")))
    return f"shard-{{000000..{count - 1:06}}}.tar"


def data(source, **options):
    settings = {"shape": SHAPE, "videos": source, "images": source, "video_batch_size": 2, "image_batch_size": 1}
    return JointData(**{**settings, "fps": [10.0], **options})


def batches(datamodule, number):
    datamodule.setup("fit")
    return [datamodule.on_after_batch_transfer(parts, 0) for parts in islice(datamodule.train_dataloader(), number)]


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("kind", ["pipe", pytest.param("http", marks=needs_curl)])
def test_streams_give_the_samples_of_the_shards(shards, server, kind, num_workers):
    base = f"pipe:cat {shards}" if kind == "pipe" else server
    shown = batches(data(f"{base}/{names(shards)}", num_workers=num_workers), 10)
    assert all(batch.video.shape == (3, 3, 4, 8, 8) for batch in shown)
    seen = {key: caption for batch in shown for key, caption in zip(batch.keys, batch.captions, strict=True)}
    assert set(seen) == {f"videos/{i}.mp4" for i in range(8)} | {f"images/{i}.png" for i in range(5)}
    assert all(caption == f"{key[:5]} {key.split('/')[1][0]}" for key, caption in seen.items())


def consume(shards, rank, world, number, seed=0, start=0):
    url = f"pipe:cat {shards}/{names(shards)}"
    clips = StreamedClips({"video": [url]}, {"video": [1.0]}, {"video": 1}, READER, seed, rank, world, start)
    return [parts[0].keys[0] for parts in islice(clips, number)]


def test_ranks_with_shards_of_their_own(shards):
    about = [json.loads(path.read_text())["samples"] for path in sorted(shards.glob("shard-*.json"))]
    videos = [[each["key"] for each in samples if each["modality"] == "video"] for samples in about]
    assert len(videos) == 2 and all(videos)
    seen = []
    for rank in range(2):
        [first] = consume(shards, rank, 2, 1)
        own = next(keys for keys in videos if first.removesuffix(".mp4") in keys)
        seen += consume(shards, rank, 2, len(own))
    assert sorted(seen) == [f"videos/{i}.mp4" for i in range(8)]


def test_more_ranks_than_shards_share_the_samples(shards):
    """8 videos of two shards: each of 8 ranks has one of them in each pass."""
    seen = [consume(shards, rank, 8, 3) for rank in range(8)]
    for turn in range(3):
        assert sorted(own[turn] for own in seen) == [f"videos/{i}.mp4" for i in range(8)]


def test_order_is_of_the_seed_and_a_resume_draws_another(shards):
    first = consume(shards, 0, 1, 24)
    assert consume(shards, 0, 1, 24) == first
    assert consume(shards, 0, 1, 24, seed=1) != first and consume(shards, 0, 1, 24, start=7) != first
    assert all(len(set(first[i : i + 8])) == 8 for i in (0, 8, 16))


@needs_curl
def test_broken_streams_are_named_and_survived(shards, server):
    whole = f"{server}/shard-000001.tar"
    sources = [Source(whole), Source(f"{server}/{{cut,shard-000000,missing}}.tar")]
    datamodule = data(sources, images=None, image_batch_size=0)
    batches(datamodule, 12)
    reasons = {place.rpartition("/")[2]: reason.split(":")[0] for place, reason in datamodule.skipped.items()}
    assert {"cut.tar": "broken stream", "missing.tar": "broken stream"}.items() <= reasons.items()
    assert set(reasons.values()) == {"broken stream"}


def test_error_when_a_stream_gives_nothing():
    with pytest.raises(NothingUsable, match="no sample of pipe:false can be used"):
        batches(data("pipe:false", images=None, image_batch_size=0), 1)


@pytest.mark.parametrize("options", [{"holdout": 1}, {"embeddings": True}, {"image_steps": 0.5}])
def test_error_of_what_streams_do_not_offer(options):
    with pytest.raises(ValueError, match=rf"{next(iter(options))} is .*: streams \(http, pipe:\) don't offer this"):
        data("https://host/a.tar", **options)


def test_error_of_streams_beside_files(files):
    with pytest.raises(ValueError, match=r"all must be streams \(http, pipe:\), or none"):
        data("https://host/a.tar", images=files)


def test_a_dead_shard_ends_no_training(shards):
    """Each of two consumers has one shard in a pass, and one shard is not there."""
    url = f"pipe:cat {shards}/{{shard-000000,missing}}.tar"
    for rank in range(2):
        clips = StreamedClips({"video": [url]}, {"video": [1.0]}, {"video": 1}, READER, 0, rank, 2, 0)
        assert len(list(islice(clips, 12))) == 12


def test_another_epoch_is_another_pass(shards):
    datamodule = data(f"pipe:cat {shards}/{names(shards)}", images=None, image_batch_size=0)
    loader, step = datamodule.train_dataloader(), iter((0, 3))
    loader.step = lambda: next(step)
    first, second = ([parts[0].keys for parts in islice(loader, 4)] for _ in range(2))
    assert first != second
