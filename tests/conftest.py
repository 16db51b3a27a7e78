"""What all tests share: one thread, no network, and where the real clips are."""

import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_OFFLINE"] = "1"

import pytest
import torch

torch.set_num_threads(1)

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real clips and images; the test is skipped where there is none."""
    folder = Path(os.environ.get("SNAPVIDEO_TEST_DATA", ROOT / "../shared/data")).resolve()
    if not (folder / "videos").is_dir():
        pytest.skip(f"no real clips: {folder}/videos is missing; set SNAPVIDEO_TEST_DATA to a folder that has it")
    return folder
