"""The number format of matrix products: what the processor computes in, and a note where it would emulate it."""

import pytest
import torch

from util.system import device
from util.system.device import choose_precision
from util.system.errors import InputError

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("features", "amp", "chosen", "noted"),
    [
        ({"avx2", "f16c"}, "auto", "fp32", False),
        ({"avx2", "f16c"}, "bf16", "bf16", True),
        ({"avx2", "f16c"}, "fp16", "fp16", True),
        ({"avx512_bf16"}, "auto", "bf16", False),
        ({"avx512_bf16"}, "bf16", "bf16", False),
        ({"avx512_bf16"}, "fp16", "fp16", True),
        ({"amx_bf16", "amx_fp16"}, "fp16", "fp16", False),
        ({"avx2"}, "fp32", "fp32", False),
        (None, "auto", "fp32", False),  # a system that does not tell
        (None, "bf16", "bf16", False),
    ],
)
def test_what_the_processor_has_is_chosen_and_what_it_lacks_is_noted(features, amp, chosen, noted, monkeypatch, capsys):
    monkeypatch.setattr(device, "processor_features", lambda: features)
    assert choose_precision(amp, CPU) == chosen
    assert (f"note: --amp {amp}: this processor has no arithmetic for it" in capsys.readouterr().out) == noted


def test_tf32_is_for_a_gpu():
    with pytest.raises(InputError, match="--amp tf32 is for a GPU"):
        choose_precision("tf32", CPU)
