import numpy as np
import pytest
import torch
from torch import nn
from torchmetrics.image.inception import InceptionScore as OfImages

from snapvideo.components.metrics import InceptionScore
from snapvideo.components.metrics.network import Classifier


class Given(Classifier):
    """Reads the logits from the pixels of the first frame, in tenths, as many per class."""

    files, classes = (), 12

    def load(self):
        raise AssertionError

    def preprocessing(self):
        return {}

    def classify(self, videos):
        return (videos[:, 0, :, 0].float() / 10).softmax(-1)


def drawn(count, frames=1):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 60, (count, 3, frames, 4, 12), generator=generator, dtype=torch.uint8)


def score(videos, splits=1):
    metric = InceptionScore(Given(), splits)
    metric.update(videos, [""] * len(videos))
    return {name: float(value) for name, value in metric.compute().items()}


def test_as_torchmetrics():
    class Logits(nn.Module):
        def forward(self, images):
            return images[:, 0, 0].float() / 10

    videos = drawn(200)
    theirs = OfImages(feature=Logits(), splits=1)
    theirs.update(videos[:, :, 0])
    assert score(videos)["inception_score"] == pytest.approx(float(theirs.compute()[0]), rel=1e-5)
    assert score(videos)["inception_score_std"] == 0


def test_splits_are_scored_by_themselves():
    """The published formula, in numpy, on every fourth video; frames count as pictures."""
    videos = drawn(26, frames=3)
    rows = Given().classify(videos).double().numpy()
    scores = []
    for i in range(4):
        part = rows[i::4].reshape(-1, 12)
        divergence = (part * (np.log(part) - np.log(part.mean(0, keepdims=True)))).sum(1)
        scores.append(np.exp(divergence.mean()))
    found = score(videos, 4)
    assert found["inception_score"] == pytest.approx(np.mean(scores), rel=1e-9)
    assert found["inception_score_std"] == pytest.approx(np.std(scores), rel=1e-6)


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_from_one_to_the_number_of_classes():
    sure = torch.zeros(24, 3, 1, 4, 12, dtype=torch.uint8)
    sure[torch.arange(24), 0, 0, 0, torch.arange(24) % 12] = 255
    metric = InceptionScore(Given(), splits=1)
    metric.add((sure[:, 0, :, 0] > 0).float())  # probabilities of exactly 0 and 1
    assert metric.compute()["inception_score"] == pytest.approx(12)
    assert score(sure)["inception_score"] == pytest.approx(12, rel=1e-6)
    assert score(sure[:1].expand(9, -1, -1, -1, -1), 2)["inception_score"] == pytest.approx(1)
    assert score(torch.zeros_like(sure))["inception_score"] == pytest.approx(1)


def test_batches_change_nothing():
    videos = drawn(30)
    at_once = score(videos, 4)
    metric = InceptionScore(Given(), 4)
    for part in videos.split(7):
        metric.update(part, [""] * len(part))
        metric.compute()
    assert {name: float(value) for name, value in metric.compute().items()} == pytest.approx(at_once, rel=1e-12)
    assert score(videos.flip(0)) == pytest.approx(score(videos), rel=1e-12)  # one part: nor does order


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_of_nothing_and_of_fewer_videos_than_splits():
    assert InceptionScore(Given()).compute()["inception_score"].isnan()
    assert score(drawn(3), 10)["inception_score"] == pytest.approx(1)
    for wrong in ({"splits": 0}, {"frames": 0}):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))}=0"):
            InceptionScore(Given(), **wrong)
