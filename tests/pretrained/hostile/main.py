"""Prints what the refusal of each attack costs: seconds, MiB, and whether it names the file.

python tests/pretrained/hostile/main.py FOLDER
"""

import json
import resource
import sys
import time
from pathlib import Path


sys.path[:0] = [str(Path(__file__).parents[2])]

from golden.copies import changed_copy  # noqa: E402
from pretrained.hostile import ATTACKS  # noqa: E402

import ide_transformer as ide  # noqa: E402
from ide_transformer.pretrained import load_pretrained  # noqa: E402


def cost(folder, attack):
    """Of one attack, whose files are written into the folder."""
    folder.mkdir(parents=True)
    file, read = attack.write(folder, *attack.case)
    before, start, message = peak(), time.perf_counter(), ""
    try:
        read()
    except ide.InputError as error:
        message = str(error)
    seconds, mebibytes = time.perf_counter() - start, peak() - before
    return dict(seconds=seconds, mebibytes=mebibytes, refused=str(file) in message)


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    # What a first checkpoint costs is not the price of an attack.
    load_pretrained(changed_copy(folder / "sound", "llama"))
    for number, (name, attack) in enumerate(ATTACKS.items()):
        figures = cost(folder / str(number) / "files", attack)
        print(json.dumps(dict(name=name) | figures), flush=True)
