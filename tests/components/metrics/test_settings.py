"""Metrics and their networks as recipes write them."""

import pytest
import yaml
from jsonargparse import ArgumentParser

from snapvideo.components.metrics import CLIP, CLIPSIM, FID, FVD, InceptionScore, VideoMAE, VideoMetric

RECIPE = """
metrics:
- class_path: snapvideo.components.metrics.FVD
  init_args:
    network:
      class_path: snapvideo.components.metrics.I3D
      init_args: {file: i3d_torchscript.pt}
- class_path: FVD
  init_args: {network: {class_path: VideoMAE, init_args: {name: somewhere/videomae}}}
- class_path: FID
  init_args:
    network: {class_path: Inception, init_args: {file: inception-2015-12-05.pt}}
    frames: 4
- class_path: FID
  init_args: {network: {class_path: CLIP}}
- class_path: InceptionScore
  init_args:
    network: {class_path: C3D, init_args: {file: c3d_ucf101.pt}}
- class_path: CLIPSIM
  init_args: {network: {class_path: CLIP}}
"""


def parser():
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--metrics", type=list[VideoMetric])
    return parser


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_metrics_from_a_recipe():
    """They are built where their files are not, and each has a score of its own name."""
    fvd, videomae, fid, clip_fid, inception, clipsim = built = (
        parser().instantiate(parser().parse_object(yaml.safe_load(RECIPE))).metrics
    )
    assert [type(metric) for metric in built] == [FVD, FVD, FID, FID, InceptionScore, CLIPSIM]
    names = [next(iter(metric.compute())) for metric in built]
    assert names == ["fvd", "videomae_fvd", "fid", "clip_fid", "inception_score", "clipsim"]
    assert all(score.isnan() for metric in built for score in metric.compute().values())
    assert (fid.frames, clip_fid.frames, inception.splits) == (4, 1, 10)
    assert fvd.network.file == "i3d_torchscript.pt" and isinstance(videomae.network, VideoMAE)
    assert isinstance(clipsim.network, CLIP) and clipsim.network.name == "openai/clip-vit-base-patch32"
    assert [metric.uses_real for metric in built] == [True, True, True, True, False, False]


@pytest.mark.parametrize(("metric", "network"), [("FVD", "Inception"), ("FID", "I3D"), ("InceptionScore", "I3D")])
def test_networks_of_another_kind_are_refused_at_once(metric, network):
    setting = {"class_path": network, "init_args": {"file": "x.pt"}}
    recipe = {"metrics": [{"class_path": metric, "init_args": {"network": setting}}]}
    with pytest.raises(Exception, match="network"):
        parser().parse_object(recipe)
