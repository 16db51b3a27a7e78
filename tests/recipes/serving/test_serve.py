import socket
import subprocess
import sys

import pytest

from ..conftest import call


def test_without_gradio_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    result = call("serve", "demo")
    assert result.code == 2
    assert "pip install 'snapvideo[serve]'" in result.err and result.err.count("\n") == 1


def test_help_names_all_that_can_be_served():
    words = " ".join(call("serve", "--help").out.split())
    assert "exported model" in words and "USER/NAME on the Hub" in words


def test_help_is_quick_and_names_what_opens_it_to_others():
    code = (
        "import sys; from snapvideo.recipes.cli import main; main(['serve', '--help']); print('torch' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "0.0.0.0" in out and out.endswith("False\n")


@pytest.mark.parametrize(
    ("words", "fragment"),
    [
        ("serve dmo", "Did you mean 'demo'?"),
        ("serve runs/demo --port 99999", "--port 99999"),
        ("serve runs/demo --host nowhere.invalid", "--host nowhere.invalid"),
        ("serve runs/demo --max-steps 0", "--max-steps 0: it must be at least 1"),
        ("serve runs/demo --max-upload -1", "--max-upload -1"),
        ("serve runs/demo -o .", "holds other files"),
        ("serve runs/demo --model.backbone FIT", "training has fixed it"),
        ("serve runs/demo --model.sampler Hun", "Did you mean 'Heun'?"),
        ("serve runs/demo --device warp", "--device warp"),
        ("serve runs/demo --port {taken}", "another --port may be free"),
    ],
)
def test_mistakes(work, words, fragment):
    pytest.importorskip("gradio", reason="no Gradio: CONTRIBUTING.md says how to have it")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        result = call(*words.format(taken=taken.getsockname()[1]).split())
    assert result.code == 2, result.err
    assert fragment in result.err and "Traceback" not in result.err
