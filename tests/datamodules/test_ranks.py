"""Several processes share the batches of one."""

import json
import shutil
import subprocess
import sys
from itertools import islice

import pytest

from snapvideo.components.interfaces import VideoShape
from snapvideo.datamodules import JointData

pytestmark = pytest.mark.slow

SCRIPT = """
import json, sys
from pathlib import Path
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
import torch
from snapvideo.components.interfaces import VideoShape
from snapvideo.datamodules import JointData

class Keys(LightningModule):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen = {"train": [], "validation": []}
    def training_step(self, batch, index):
        self.seen["train"].append(batch.keys)
        return self.weight * batch.video.mean()
    def validation_step(self, batch, index):
        self.seen["validation"].append(batch.keys)
    def on_fit_end(self):
        Path(sys.argv[1], f"{self.global_rank}.json").write_text(json.dumps(self.seen))
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

if __name__ == "__main__":
    root, world, videos, images, holdout, steps, wide = Path(sys.argv[1]), *map(int, sys.argv[2:8])
    image_folder = root / "images" if images else None
    buckets = [VideoShape(2, 8, 14)] if wide else []
    settings = {"fps": [10.0], "holdout": holdout, "buckets": buckets}
    data = JointData(VideoShape(4, 8, 8), root / "videos", image_folder, videos, images, **settings)
    last = root / "last.ckpt"
    trainer = Trainer(
        max_steps=steps, accelerator="cpu", devices=world, strategy="ddp", logger=False, enable_progress_bar=False,
        callbacks=[ModelCheckpoint(root, save_last=True, every_n_train_steps=1, save_top_k=0)],
        val_check_interval=2 if holdout else None, check_val_every_n_epoch=None,
    )
    trainer.fit(Keys(), data, ckpt_path=last if last.exists() else None)
"""


@pytest.fixture
def root(files, tmp_path):
    shutil.copytree(files, tmp_path, dirs_exist_ok=True)
    (tmp_path / "ranks.py").write_text(SCRIPT)
    return tmp_path


def train(root, world, videos, images, holdout, steps, wide=0) -> list[dict]:
    """What each rank saw."""
    words = [str(number) for number in (world, videos, images, holdout, steps, wide)]
    subprocess.run([sys.executable, root / "ranks.py", root, *words], check=True, timeout=300)
    return [json.loads((root / f"{rank}.json").read_text()) for rank in range(world)]


@pytest.mark.parametrize("wide", [0, 1])
def test_two_processes_share_the_batches_of_one(root, wide):
    """Without any setting: the Trainer does not put its own sampler in the place of ours."""
    first, second = train(root, 2, videos=2, images=1, holdout=3, steps=6, wide=wide)
    settings = {"fps": [10.0], "holdout": 3, "buckets": [VideoShape(2, 8, 14)] if wide else []}
    data = JointData(VideoShape(4, 8, 8), root / "videos", root / "images", 4, 2, **settings)
    data.setup("fit")
    whole = [[key for part in parts for key in part.keys] for parts in islice(data.train_dataloader(), 6)]
    together = [sorted(a + b) for a, b in zip(first["train"], second["train"], strict=True)]
    assert together == [sorted(keys) for keys in whole]
    assert len(first["validation"]) == len(second["validation"])
    held = {key for seen in (first, second) for keys in seen["validation"] for key in keys}
    assert len(held) == 6


def test_two_then_one_then_four_processes_leave_nothing_out(root):
    """8 videos, 1 for each process and step: two passes of 8, each whole, in 2 + 4 + 2 steps."""
    seen = []
    for world, steps in ((2, 2), (1, 6), (4, 8)):
        ranks = train(root, world, videos=1, images=0, holdout=0, steps=steps)
        seen += [
            key for batches in zip(*(rank["train"] for rank in ranks), strict=True) for keys in batches for key in keys
        ]
    names = [f"{i}.mp4" for i in range(8)]
    assert len(seen) == 16 and sorted(seen[:8]) == sorted(seen[8:]) == names
