import contextlib
import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from snapvideo.components.media import write_mp4

from ..conftest import call

PROMPTS = ["a red circle moves left", "a </script> & a 'blue' square", "a tree", "nothing", "ein grüner Vogel"]


def make_clips(folder, prompts=PROMPTS, seeds=(0,), shade=0, size=32):
    """A folder as `snapvideo sample` leaves it, of clips of random colours."""
    generator = torch.Generator().manual_seed(shade)
    lines = []
    for number, prompt in enumerate(prompts):
        for seed in seeds:
            name = f"p{number:02d}_s{seed}_{folder.name}.mp4"
            colours = torch.randint(0, 256, (3, 6, 1, 1), generator=generator, dtype=torch.uint8)
            write_mp4(folder / name, colours.expand(3, 6, size, size), 12)
            lines.append({"file": name, "prompt": prompt, "seed": seed, "fps": 12, "run": f"runs/{folder.name}"})
    folder.joinpath("meta.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


@dataclass
class Made:
    """A study on the disk."""

    folder: Path

    @property
    def page(self):
        return (self.folder / "study.html").read_text()

    @property
    def key(self):
        return json.loads((self.folder / "key.json").read_text())

    def votes(self, rater, choose, file=None):
        """A file of votes; `choose` gives a, b, none or, for no vote, None, of the place of a pair and a question."""
        votes = []
        for place, (pair, about) in enumerate(self.key["pairs"].items()):
            for question in self.key["questions"]:
                whose = choose(place, question)
                answer = "none" if whose == "none" else "left" if whose == about["left"] else "right"
                votes += [{"pair": pair, "question": question, "answer": answer}] if whose else []
        return self.write({"study": self.key["study"], "rater": rater, "votes": votes}, file or f"votes_{rater}.json")

    def write(self, votes, file):
        path = self.folder / file
        path.write_text(votes if isinstance(votes, str) else json.dumps(votes))
        return path


@pytest.fixture(scope="session")
def videos(tmp_path_factory):
    """A folder with videos/zebra and videos/quokka, of the same prompts and seeds."""
    folder = tmp_path_factory.mktemp("clips") / "videos"
    for shade, name in enumerate(("zebra", "quokka")):
        make_clips(folder / name, shade=shade)
    return folder


@pytest.fixture
def made(videos, tmp_path, monkeypatch):
    """A study of these, in the current folder."""
    monkeypatch.chdir(tmp_path)
    result = call("study", videos / "zebra", videos / "quokka", "-o", "out")
    assert result.code == 0, result.err
    return Made(tmp_path / "out")


@pytest.fixture(scope="session")
def asked(videos, tmp_path_factory):
    """A study of these, not to be written to."""
    folder = tmp_path_factory.mktemp("asked")
    with contextlib.chdir(folder):
        assert call("study", videos / "zebra", videos / "quokka", "-o", "out").code == 0
    return Made(folder / "out")
