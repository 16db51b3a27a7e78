"""Tar files: what Python's tarfile wrote is read as it was, and what is damaged is named."""

import io
import json
import os
import random
import tarfile
import time

import pytest

from snapvideo.datamodules import tars
from snapvideo.datamodules.tars import Tar, scan

FILES = {f"{i:03}.{end}": bytes([i]) * (100 + 300 * i) for i in range(12) for end in ("mp4", "txt")}


def write(path, files=FILES, format=tarfile.PAX_FORMAT):
    with tarfile.open(path, "w", format=format) as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def contents(tree):
    found = {}
    for prefix, names in tree.folders():
        for name in names:
            with tree.open(prefix + name) as file:
                found[prefix + name] = file.read()
    return found


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_reads_what_was_written(tmp_path, format):
    long = "long/" * 15 + "name " * 18 + ".mp4"  # more than the 100 bytes of a plain header
    files = FILES | {"a/b/c.mp4": b"deep", "a/empty.txt": b"", long: b"long"}
    if format != tarfile.USTAR_FORMAT:
        files |= {"x" * 300 + ".mp4": b"longer", "dög/ünd.mp4": "Körper".encode()}
    tree = Tar(write(tmp_path / "a.tar", files, format))
    assert contents(tree) == files and tree.lost == []
    assert all(tree.size(name) == len(content) for name, content in files.items())


def test_a_member_is_a_file_of_its_own(tmp_path):
    content = random.Random(0).randbytes(5000)
    tree = Tar(write(tmp_path / "a.tar", {"before.txt": b"x", "a.mp4": content, "after.txt": b"y"}))
    whole = io.BytesIO(content)
    with tree.open("a.mp4") as file:
        for offset, whence, size in ((100, 0, 50), (-20, 2, 100), (10, 1, 5), (0, 0, -1), (9000, 0, 10), (-300, 1, 7)):
            assert file.seek(offset, whence) == whole.seek(offset, whence)
            assert file.read(size) == whole.read(size) and file.tell() == whole.tell()
    assert file.closed


def test_error_of_a_member_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError):
        Tar(write(tmp_path / "a.tar")).open("no.mp4")


def test_directories_and_hidden_members_are_passed_over(tmp_path):
    (tmp_path / "in/.hidden").mkdir(parents=True)
    for name in ("a.mp4", ".b.mp4", ".hidden/c.mp4"):
        (tmp_path / "in" / name).write_bytes(b"x")
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        tar.add(tmp_path / "in", arcname=".")
    tree = Tar(tmp_path / "a.tar")
    assert contents(tree) == {"a.mp4": b"x"} and tree.lost == []


@pytest.mark.parametrize("name", ["../a.mp4", "/etc/passwd.mp4", "a/../../b.mp4"])
def test_names_that_lead_out_are_refused(tmp_path, name):
    tree = Tar(write(tmp_path / "a.tar", {name: b"x", "good.mp4": b"y"}))
    assert contents(tree) == {"good.mp4": b"y"}
    assert [(lost, reason.split(":")[0]) for lost, reason in tree.lost] == [(name, "unsafe name")]


def test_second_files_of_one_name_and_links_are_named(tmp_path):
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as tar:
        for content in (b"one", b"two"):
            info = tarfile.TarInfo("a.mp4")
            info.size = 3
            tar.addfile(info, io.BytesIO(content))
        link = tarfile.TarInfo("b.mp4")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    tree = Tar(path)
    assert contents(tree) == {"a.mp4": b"one"}
    assert [reason.split(":")[0] for _, reason in tree.lost] == ["duplicate", "link"]


@pytest.mark.parametrize("damage", ["header", "zeros"])
def test_members_after_a_damaged_header_are_found(tmp_path, damage):
    path = write(tmp_path / "a.tar")
    whole = scan(path)
    victim = "004.mp4"
    offset = whole.members[victim][0] - 512
    data = bytearray(path.read_bytes())
    data[offset : offset + 512] = bytes(512) if damage == "zeros" else random.Random(1).randbytes(512)
    path.write_bytes(data)
    with tarfile.open(path) as theirs:
        assert len(theirs.getnames()) < len(FILES) - 1  # it ends without a word
    found = scan(path)
    assert found.members == {name: place for name, place in whole.members.items() if name != victim}
    assert [reason.split(":")[0] for _, reason in found.lost] == ["damaged tar"]


@pytest.mark.parametrize("cut", ["in a header", "in a member", "after a member", "in the end mark"])
def test_a_cut_is_named(tmp_path, cut):
    path = write(tmp_path / "a.tar")
    whole = scan(path)
    offset, size = whole.members["007.txt"]
    end = {
        "in a header": offset - 200,
        "in a member": offset + size // 2,
        "after a member": -(-(offset + size) // 512) * 512,
        "in the end mark": sum(max(whole.members.values())) // 512 * 512 + 512,
    }[cut]
    os.truncate(path, end)
    found = scan(path)
    assert found.members == {n: place for n, place in whole.members.items() if sum(place) <= end}
    assert found.lost and all(reason.startswith("truncated: ") for _, reason in found.lost)
    assert ("007.txt" in [name for name, _ in found.lost]) == (cut == "in a member")


def test_what_is_no_tar_is_refused(tmp_path):
    path = tmp_path / "a.tar"
    path.write_bytes(random.Random(0).randbytes(3000))
    with pytest.raises(ValueError, match=r"a\.tar is no tar file"):
        scan(path)


@pytest.mark.parametrize("size", [0, 1024])
def test_a_tar_may_be_empty(tmp_path, size):
    path = tmp_path / "a.tar"
    path.write_bytes(bytes(size))
    assert scan(path).members == {}


def test_random_damage_is_survived_and_never_silent(tmp_path):
    path = write(tmp_path / "a.tar")
    whole, data = scan(path), path.read_bytes()
    rng = random.Random(0)
    for _ in range(300):
        bad = bytearray(data)
        for _ in range(rng.choice([1, 1, 3])):
            start = rng.randrange(len(bad))
            bad[start : start + rng.choice([1, 8, 600])] = rng.randbytes(rng.choice([1, 8, 600]))
        del bad[len(bad) if rng.random() < 0.7 else rng.randrange(1, len(bad)) :]
        path.write_bytes(bad)
        try:
            found = scan(path)
        except ValueError:
            continue
        if set(whole.members) - set(found.members):
            assert found.lost


def test_the_scan_is_kept_until_the_tar_changes(tmp_path, monkeypatch):
    path = write(tmp_path / "a.tar")
    first = Tar(path)
    assert json.loads((tmp_path / ".a.tar.index.json").read_text())["members"]
    with monkeypatch.context() as patch:
        patch.setattr(tars, "scan", None)
        assert Tar(path).members == first.members
    write(path, {"new.mp4": b"new"})
    assert contents(Tar(path)) == {"new.mp4": b"new"}
    time.sleep(0.01)
    write(path, {"NEW.mp4": b"new"})  # of the same size
    assert contents(Tar(path)) == {"NEW.mp4": b"new"}
    (tmp_path / ".a.tar.index.json").write_text("{}")
    assert contents(Tar(path)) == {"NEW.mp4": b"new"}


def test_links_take_no_space_whatever_they_say(tmp_path):
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as tar:
        link = tarfile.TarInfo("link.mp4")
        link.type, link.linkname = tarfile.SYMTYPE, "0.txt"
        tar.addfile(link)
        for i in range(4):
            info = tarfile.TarInfo(f"{i}.txt")
            info.size = 600
            tar.addfile(info, io.BytesIO(bytes([i]) * 600))
    data = bytearray(path.read_bytes())
    data[124:136] = b"00000004000\0"  # 2048 bytes
    data[148:156] = b" " * 8
    data[148:156] = f"{sum(data[:512]):06o}\0 ".encode()
    path.write_bytes(data)
    assert sorted(scan(path).members) == ["0.txt", "1.txt", "2.txt", "3.txt"]


def test_damaged_embeddings_leave_the_media(tmp_path):
    write(tmp_path / "a.tar", {"a.mp4": b"x"})
    (tmp_path / "a.embeddings.tar").write_bytes(b"junk" * 1000)
    tree = Tar(tmp_path / "a.tar")
    assert contents(tree) == {"a.mp4": b"x"}
    assert [name for name, _ in tree.lost] == ["a.embeddings.tar"]


def test_a_folder_that_cannot_be_written_to(tmp_path, monkeypatch):
    write(tmp_path / "a.tar")

    def refuse(*_, **__):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("pathlib.Path.write_text", refuse)
    monkeypatch.setattr("pathlib.Path.unlink", refuse)
    assert contents(Tar(tmp_path / "a.tar")) == FILES
