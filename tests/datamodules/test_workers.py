"""Workers of a loader: signals to all processes of a job are not for them, but for the one that they work for."""

import os
import signal
import subprocess
import time

import pytest
from torch.utils.data import Dataset

from snapvideo.datamodules.clips import Loader


class Pids(Dataset):
    """Who reads."""

    def __len__(self):
        return 100

    def __getitem__(self, index):
        time.sleep(0.05)
        return os.getpid()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGUSR1, signal.SIGTERM])
def test_a_worker_obeys_its_parent_alone(number):
    before = {each: signal.signal(each, lambda *_: os._exit(9)) for each in (signal.SIGUSR1, signal.SIGTERM)}
    try:  # a forked worker has the handlers of the training
        batches = iter(Loader(Pids(), batch_size=None, num_workers=1))
        worker = next(batches)
        assert worker != os.getpid()
        subprocess.run(["kill", f"-{int(number)}", str(worker)], check=True)
        assert all(next(batches) == worker for _ in range(20))
        os.kill(worker, signal.SIGTERM)
        with pytest.raises(RuntimeError, match="exited unexpectedly"):
            list(batches)
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
