"""Golden checkpoints of texts: a tiny one of each family, and its outputs by transformers.

    python tests/golden/make_texts.py

writes tests/golden/<family>. It needs the reference packages, pip install -e '.[reference]'.
"""

import numpy as np
from cases import CASES, GOLDEN, inputs, make_reference, outputs_of


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
