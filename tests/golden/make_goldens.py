"""Writes tests/golden/: a tiny checkpoint of each family of texts and what transformers makes
of it. Needs the reference packages: pip install -e '.[reference]'.

    python tests/make_goldens.py
"""

import numpy as np
from golden.pretrained_cases import CASES, inputs, make_reference, outputs_of
from helpers import GOLDEN


def main() -> None:
    tokens, mask = inputs()
    for name in CASES:
        if "," in name:
            continue
        folder = GOLDEN / name
        # The weights are stored in float32; the outputs are those of float64.
        reference = make_reference(name, folder, "float32").double()
        (folder / "generation_config.json").unlink(missing_ok=True)
        np.savez_compressed(
            folder / "outputs.npz",
            tokens=tokens,
            mask=mask,
            **outputs_of(reference, tokens, mask),
        )


if __name__ == "__main__":
    main()
