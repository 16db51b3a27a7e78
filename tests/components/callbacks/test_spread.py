"""Averages of weights that FSDP2 spreads over two processes, on one CPU, against those of one process."""

import os
import socket
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy
from safetensors.torch import load_file
from torch import multiprocessing, nn
from torch.distributed.fsdp import fully_shard
from torch.utils.data import DataLoader

from snapvideo.components.callbacks import EMA, PostHocEMA

AVERAGES = ("state_dict", "current_model_state", "post_hoc_ema.std=0.05", "post_hoc_ema.std=0.1")


class Spread(LightningModule):
    """A network in two groups of weights, of which the outer stays whole after an evaluation."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 1))
        self.register_buffer("count", torch.tensor(0))

    def configure_model(self):
        if self.device_mesh is not None:
            fully_shard(self.net[0], mesh=self.device_mesh["data_parallel"])
            fully_shard(self.net, mesh=self.device_mesh["data_parallel"])

    def training_step(self, batch, batch_idx):
        self.count += 1
        return self.net(batch).square().mean()

    def validation_step(self, batch, batch_idx):
        return self.net(batch)

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=0.1)


class Look(Callback):
    """What the network answers in validation: with the average, with the training weights, and with it again."""

    def __init__(self, ema):
        self.ema, self.seen = ema, []

    def on_validation_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        with self.ema.training_weights(pl_module):
            raw = pl_module.net(batch)
        self.seen.append((outputs.tolist(), raw.tolist(), pl_module.net(batch).tolist()))


@dataclass
class Job:
    """A training: where to, how many steps, from which checkpoint, how weights are spread and saved."""

    folder: Path
    steps: int
    start: Path | None = None
    strategy: str = "fsdp2"

    def run(self):
        """Train, and leave ``step=N.ckpt`` of every step and ``seen.pt``."""
        ema = EMA(3.0)
        look = Look(ema)
        checkpoint = ModelCheckpoint(self.folder, "{step}", every_n_train_steps=1, save_top_k=-1)
        strategies = {
            "one": "auto",
            "ddp": DDPStrategy(process_group_backend="gloo"),
            "fsdp2": ModelParallelStrategy(2, 1, save_distributed_checkpoint=False),
            "folder": ModelParallelStrategy(2, 1, save_distributed_checkpoint=True),
        }
        trainer = Trainer(
            accelerator="cpu",
            devices=1 if self.strategy == "one" else 2,
            strategy=strategies[self.strategy],
            max_steps=self.steps,
            callbacks=[PostHocEMA(2), ema, look, checkpoint],
            default_root_dir=self.folder,
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            val_check_interval=2,
            use_distributed_sampler=False,
        )
        data = torch.linspace(-1, 1, 6).reshape(2, 3).repeat(20, 1)  # equal batches, in each process and step
        validation = DataLoader(torch.ones(1, 3))
        trainer.fit(Spread(), DataLoader(data, batch_size=2), validation, ckpt_path=self.start)
        if trainer.is_global_zero:
            torch.save(look.seen, self.folder / "seen.pt")


def one_of_two(rank, port, jobs):
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "NODE_RANK": "0"}
    os.environ |= {"LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    for job in jobs:
        job.run()
    with pytest.raises(ValueError, match="save_distributed_checkpoint=False"):
        Job(jobs[0].folder.with_name("folder"), 1, strategy="folder").run()


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """The folder of trainings, each named by how its weights were spread, and by what it goes on from."""
    root = tmp_path_factory.mktemp("spread")
    Job(root / "one", 6, strategy="one").run()
    jobs = [
        Job(root / "ddp", 6, strategy="ddp"),
        Job(root / "fsdp2", 6),
        Job(root / "fsdp2-from-fsdp2", 6, root / "fsdp2/step=3.ckpt"),
        Job(root / "fsdp2-from-one", 6, root / "one/step=3.ckpt"),
    ]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    multiprocessing.spawn(one_of_two, (port, jobs), 2)
    Job(root / "one-from-fsdp2", 6, root / "fsdp2/step=3.ckpt", "one").run()
    return root


FILES = ["ddp", "fsdp2", "fsdp2-from-fsdp2", "fsdp2-from-one", "one-from-fsdp2"]


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_checkpoints_are_those_of_one_process(done, name):
    """Two processes with equal batches have the gradients of one: all is equal to the bit, also across a resume."""
    ours, theirs = (torch.load(done / each / "step=6.ckpt", weights_only=True) for each in (name, "one"))
    assert int(ours["averaging_state"]["n_averaged"]) == 6
    for part in AVERAGES:
        assert ours[part].keys() == theirs[part].keys()
        for weight, value in theirs[part].items():
            assert torch.equal(ours[part][weight], value), f"{part} {weight}"
    assert not torch.equal(ours["state_dict"]["net.0.weight"], ours["current_model_state"]["net.0.weight"])


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_validation_sees_the_average_and_may_look_at_the_training_weights(done, name):
    ours, theirs = (torch.load(done / each / "seen.pt") for each in (name, "one"))
    assert len(theirs) == 4  # before the first step too
    assert ours[-2:] == theirs[-2:]
    for average, raw, again in ours[-2:]:
        assert average == again != raw


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_snapshots_are_those_of_one_process(done, name):
    files = sorted((done / name / "averages/snapshots").iterdir())
    assert {file.name[-13] for file in files} == ({"4", "6"} if "from" in name else {"2", "4", "6"})
    for file in files:
        ours, theirs = load_file(file), load_file(done / "one/averages/snapshots" / file.name)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[weight], theirs[weight]) for weight in theirs)
