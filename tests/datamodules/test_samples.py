import json
import tarfile

import pytest

from snapvideo.datamodules.samples import NothingUsable, Unusable, count_reasons
from snapvideo.datamodules.sources import index_source


def touch(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
        path.with_suffix(".txt").write_text(f"about {name}")


@pytest.fixture(params=["folder", "tar"])
def read(request, tmp_path, tmp_path_factory):
    """Lists what is in the folder of the test, as it is or packed into a tar file."""

    def listed(modality):
        if request.param == "folder":
            return index_source(tmp_path, modality)
        path = tmp_path_factory.mktemp("tars") / "all.tar"
        with tarfile.open(path, "w") as tar:
            tar.add(tmp_path, arcname=".")
        return index_source(path, modality)

    return listed


def keys(index):
    return [sample.key for sample in index.samples]


def test_finds_files_at_any_depth_sorted_by_path(tmp_path, read):
    touch(tmp_path, "b.mp4", "a/c.webm", "a/b/x.MKV", "z.jpg", "a.mov", "c.avi", "d.gif", "e.webp", "notes.pdf")
    assert keys(read("video")) == ["a.mov", "a/b/x.MKV", "a/c.webm", "b.mp4", "c.avi", "d.gif"]
    assert keys(read("image")) == ["e.webp", "z.jpg"]


def test_hidden_files_and_folders_are_ignored(tmp_path, read):
    touch(tmp_path, "a.mp4", ".b.mp4", ".cache/c.mp4", "._a.mp4")
    assert keys(read("video")) == ["a.mp4"]


def test_linked_folders_are_followed_without_going_round(tmp_path):
    touch(tmp_path, "elsewhere/a.mp4", "data/b.mp4")
    (tmp_path / "data/link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data/round").symlink_to(tmp_path / "data")
    assert keys(index_source(tmp_path / "data", "video")) == ["b.mp4", "link/a.mp4"]


def test_sources_of_captions(tmp_path, read):
    for name in ("txt", "json", "listed", "both", "bare"):
        (tmp_path / f"{name}.mp4").touch()
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/deep.mp4").touch()
    (tmp_path / "sub/own.mp4").touch()
    (tmp_path / "txt.txt").write_bytes(b"\xef\xbb\xbf  A d\xc3\xb6g. \n")
    (tmp_path / "json.json").write_text(json.dumps({"caption": "A cat.", "fps": 24}))
    (tmp_path / "both.txt").write_text("from txt")
    (tmp_path / "both.json").write_text(json.dumps({"caption": "from json"}))
    (tmp_path / "listed.json").write_text(json.dumps({"fps": 24}))
    rows = [
        ("both.mp4", "from list"),
        ("./listed.mp4", "from list"),
        ("sub/deep.mp4", "deep"),
        ("sub/own.mp4", "above"),
    ]
    lines = [json.dumps({"file_name": name, "caption": caption}) for name, caption in rows]
    (tmp_path / "metadata.jsonl").write_text("\n".join([*lines, "", ""]))
    (tmp_path / "sub/metadata.jsonl").write_text(json.dumps({"file_name": "own.mp4", "caption": "own"}))
    index = read("video")
    assert [(sample.key, sample.caption) for sample in index.samples] == [
        ("both.mp4", "from txt"),
        ("json.mp4", "A cat."),
        ("listed.mp4", "from list"),
        ("sub/deep.mp4", "deep"),
        ("sub/own.mp4", "own"),
        ("txt.mp4", "A dög."),
    ]
    [(place, reason)] = index.skipped
    assert place.endswith("/bare.mp4") and reason.startswith("no caption: ")


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        ("a.txt", b" \n", "no caption"),
        ("a.txt", b"caf\xe9", "bad caption"),
        ("a.json", b"{", "bad caption"),
        ("a.json", b'["caption"]', "no caption"),
        ("a.json", b'{"caption": 3}', "no caption"),
        ("a.json", b'{"caption": ""}', "no caption"),
        ("a.json", b'{"caption": "half an emoji \\ud83d"}', "bad caption"),
        ("a.json", b'{"caption": "x", "id": ' + b"1" * 5000 + b"}", "bad caption"),
        ("a.txt", b"long " * 3000, "caption too long"),
        ("a.txt", b"long " * 300_000, "caption too long"),
    ],
)
def test_captions_that_are_none(tmp_path, read, name, content, code):
    touch(tmp_path, "b.mp4")
    (tmp_path / "a.mp4").touch()
    (tmp_path / name).write_bytes(content)
    index = read("video")
    assert keys(index) == ["b.mp4"]
    [(place, reason)] = index.skipped
    assert place.endswith("/a.mp4") and reason.startswith(code + ": ") and (name in reason or "character" in reason)


def test_error_of_a_folder_without_media(tmp_path, read):
    touch(tmp_path, "a.jpg")
    with pytest.raises(NothingUsable, match=r"videos: .* holds no video file \(.*\.mp4"):
        read("video")


def test_error_of_a_folder_without_captions(tmp_path, read):
    (tmp_path / "a.mp4").touch()
    (tmp_path / "b.mp4").touch()
    (tmp_path / "b.txt").write_bytes(b"\xff")
    with pytest.raises(NothingUsable, match=r"1 no caption, 1 bad caption\); for example .*/a.mp4: no caption"):
        read("video")


def test_error_of_a_missing_folder(tmp_path):
    with pytest.raises(ValueError, match=r"images: .*/nowhere is neither a folder nor a tar file"):
        index_source(tmp_path / "nowhere", "image")


@pytest.mark.parametrize("line", ['{"file_name": "a.mp4"', '{"caption": "no name"}', "3"])
def test_error_of_a_metadata_line_names_it(tmp_path, read, line):
    touch(tmp_path, "a.mp4")
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "a.mp4", "caption": "A."}\n' + line)
    with pytest.raises(ValueError, match=r"metadata\.jsonl, line 2: "):
        read("video")


def test_error_of_metadata_that_is_not_utf8(tmp_path, read):
    touch(tmp_path, "a.mp4")
    (tmp_path / "metadata.jsonl").write_bytes(b"\xff")
    with pytest.raises(ValueError, match=r"metadata\.jsonl is not UTF-8"):
        read("video")


def test_reasons_are_counted_by_code():
    reasons = [str(Unusable("too short", "1 s")), str(Unusable("corrupt")), str(Unusable("too short", "2 s"))]
    assert count_reasons(reasons) == "2 too short, 1 corrupt"


def test_real_captions(real_data):
    videos, images = index_source(real_data / "videos", "video"), index_source(real_data / "images", "image")
    assert len(videos.samples) == 24 and len(images.samples) == 30
    assert videos.skipped == images.skipped == []
