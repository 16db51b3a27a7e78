import copy
import hashlib

import pytest
import torch
from torch import nn

from snapvideo.components.metrics import C3D, FID, FVD, I3D, Inception, InceptionScore

CAPTIONS = [""] * 8
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # what is published is TorchScript


def test_i3d_is_called_as_published(scripts, videos):
    features = I3D(str(scripts["i3d"]))(videos)
    assert features.shape == (8, 400) and features.dtype == torch.float32
    program = torch.jit.load(scripts["i3d"])
    for i in range(8):  # by itself, each
        known = program(videos[i : i + 1].float(), rescale=True, resize=True, return_features=True)
        assert torch.allclose(features[i : i + 1], known, atol=1e-5)
    assert not features.requires_grad


def test_inception_sees_each_frame(scripts, videos):
    network = Inception(str(scripts["inception"]))
    features, probabilities = network(videos), network.classify(videos)
    assert features.shape == (8, 16, 2048) and probabilities.shape == (8, 16, 1008)
    program = torch.jit.load(scripts["inception"])
    frame = videos[3:4, :, 5]
    assert torch.allclose(features[3, 5], program(frame, return_features=True)[0], atol=1e-5)
    assert torch.allclose(probabilities[3, 5], program(frame, no_output_bias=True)[0], atol=1e-6)


def test_c3d_sees_videos(scripts, videos):
    probabilities = C3D(str(scripts["c3d"])).classify(videos)
    assert probabilities.shape == (8, 1, 101)
    assert torch.allclose(probabilities.sum(-1), torch.ones(8, 1))
    assert torch.allclose(probabilities[2], torch.jit.load(scripts["c3d"])(videos[2:3]), atol=1e-6)


def test_scores_with_real_files(scripts, videos):
    """From files to numbers; of equal sides it is nothing."""
    i3d, inception, c3d = (kind(str(scripts[kind.__name__.lower()])) for kind in (I3D, Inception, C3D))
    fvd = FVD(i3d)
    fvd.update(videos, CAPTIONS)
    fvd.update(videos // 2, CAPTIONS, real=True)
    assert 0 < fvd.compute()["fvd"] < 1e4
    score = InceptionScore(c3d, splits=2)
    score.update(videos, CAPTIONS)
    assert 1 < score.compute()["inception_score"] <= 101
    score = InceptionScore(inception, splits=1, frames=2)
    score.update(videos, CAPTIONS)
    assert int(score.count) == 16 and score.compute()["inception_score"] >= 1
    assert FID(inception).observe(videos, CAPTIONS).shape == (8, 1, 2048)


def test_records_name_the_weights_and_the_preprocessing(scripts, tmp_path):
    copied = tmp_path / "renamed.pt"
    copied.write_bytes(scripts["i3d"].read_bytes())
    record = FVD(I3D(str(scripts["i3d"]))).record()
    assert record == FVD(I3D(str(copied))).record()  # what a file is called does not matter
    assert record["network"]["sha256"] == hashlib.sha256(copied.read_bytes()).hexdigest()
    assert record["network"]["preprocessing"]["size"] == [224, 224] and record["score"] == "fvd"
    with open(copied, "ab") as file:
        file.write(b" ")
    assert FVD(I3D(str(copied))).record() != record
    one, four = (FID(Inception(str(scripts["inception"])), frames).record() for frames in (1, 4))
    assert one["frames"] == "the middle one" and four["frames"] == "4, evenly spaced"
    assert InceptionScore(C3D(str(scripts["c3d"]))).record()["splits"] == 10


def test_networks_are_no_part_of_a_model(scripts, videos):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.metrics = nn.ModuleList([FVD(I3D(str(scripts["i3d"])))])

    model = Model()
    model.metrics[0].update(videos, CAPTIONS)
    assert list(model.parameters()) == [] and model.state_dict() == {}
    assert len(list(model.modules())) == 3
    model.to("meta").half()
    assert I3D(str(scripts["i3d"]))(videos).shape == (8, 400)
    assert copy.deepcopy(model).metrics[0].network is model.metrics[0].network


def test_features_do_not_depend_on_what_is_around(scripts, videos):
    network = I3D(str(scripts["i3d"]))
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        inside = network(videos)
    assert torch.equal(inside, I3D(str(scripts["i3d"]))(videos))
    assert torch.equal(network(videos), inside)


@pytest.mark.parametrize("kind", [I3D, Inception, C3D])
def test_files_that_are_not_there(kind, tmp_path):
    network = kind(str(tmp_path / "none.pt"))  # can be built, for recipes are checked where files are not
    with pytest.raises(ValueError, match=r"there is no file '.*none.pt'\nFix: fetch \S+\.pt of StyleGAN") as error:
        network.record()
    assert "https://" in str(error.value) and "file=" in str(error.value)


@pytest.mark.parametrize("kind", [I3D, Inception, C3D])
def test_files_that_are_something_else(kind, scripts, videos, tmp_path):
    torch.save({"weight": torch.ones(1)}, tmp_path / "state.pt")
    (tmp_path / "half.pt").write_bytes(scripts["i3d"].read_bytes()[:1000])
    for name in ("state.pt", "half.pt"):
        network = kind(str(tmp_path / name))
        with pytest.raises(ValueError, match=r"no TorchScript file, or not a whole one\nFix: fetch"):
            network.classify(videos) if kind is C3D else network(videos)


def test_other_networks_in_a_file(scripts, videos, tmp_path):
    with pytest.raises(ValueError, match="is another network: it has no options rescale, resize, return_features"):
        I3D(str(scripts["c3d"]))(videos)

    class Three(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.float().flatten(2).mean(2).repeat(1, 34)[:, :101]

    torch.jit.script(Three()).save(tmp_path / "three.pt")
    with pytest.raises(ValueError, match="what it gives are no probabilities"):
        C3D(str(tmp_path / "three.pt")).classify(videos)

    class Narrow(nn.Module):
        def forward(self, x: torch.Tensor, rescale: bool, resize: bool, return_features: bool) -> torch.Tensor:
            return x.flatten(2).mean(2)

    torch.jit.script(Narrow()).save(tmp_path / "narrow.pt")
    with pytest.raises(ValueError, match=r"it gives \[8, 3\], not \[8, 400\]"):
        I3D(str(tmp_path / "narrow.pt"))(videos)


def test_videos_that_do_not_fit(scripts, videos):
    with pytest.raises(ValueError, match="have 8 frames: I3D takes 9 or more"):
        I3D(str(scripts["i3d"]))(videos[:, :, :8])
    with pytest.raises(ValueError, match="have 15 frames: C3D takes 16"):
        C3D(str(scripts["c3d"])).classify(videos[:, :, 1:])
    for wrong in (videos.float(), videos[0], videos[:, :1]):
        with pytest.raises(ValueError, match=r"give uint8 \[B, 3, T, H, W\]"):
            I3D(str(scripts["i3d"]))(wrong)
