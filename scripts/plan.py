"""Plans a run of a language model on many devices: the bytes that each device holds and sends
in a step. The programs are compiled for virtual devices, and not run."""

import argparse
import os
from pathlib import Path
from typing import Any

from ide_transformer import InputError
from ide_transformer.reporting import show_table, write_json
from ide_transformer.training import layouts_of, load_config, plan, run_script
from ide_transformer.training.script import integers


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="example:\n  python scripts/plan.py configs/plans/one_billion.yaml",
    )
    parser.add_argument("config", type=Path, help="a YAML file, as in configs/")
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="for example model.depth=8"
    )
    parser.add_argument(
        "--devices", type=integers, default=[8], help="for example 8,64,256 (default: 8)"
    )
    parser.add_argument(
        "--vocabulary", type=int, default=32768, help="tokens of the model (default: 32768)"
    )
    parser.add_argument(
        "--samples",
        type=int,
        default=1,
        help="of a batch, so many at once on the devices that share a sample (default: 1)",
    )
    parser.add_argument("--json", type=Path, help="write the rows here too")
    arguments = parser.parse_intermixed_args()
    # Read when the first device is asked for.
    flag = f"--xla_force_host_platform_device_count={max(arguments.devices)}"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flag}".strip()
    config = load_config(arguments.config, arguments.overrides)
    rows: list[dict[str, Any]] = []
    refused: list[InputError] = []
    for layout in [x for devices in arguments.devices for x in layouts_of(devices)]:
        try:
            rows.append(plan(config, arguments.vocabulary, layout, arguments.samples))
        except InputError as error:
            refused.append(error)
        if rows and arguments.json is not None:
            write_json(arguments.json, rows)
    if not rows:
        raise refused[0]
    show_table([_in_gibibytes(row) for row in rows])
    for error in dict.fromkeys(map(str, refused)):
        print(f"layouts left out: {error}")


def _in_gibibytes(row: dict[str, Any]) -> dict[str, Any]:
    """A row with the totals in GiB."""
    totals = ("state_bytes", "temporary_bytes", "sent_bytes")
    return {
        "devices": row["devices"],
        "layout": row["layout"],
        "parts of a batch": row["accumulate"],
        **{f"{x.removesuffix('_bytes')} (GiB)": f"{row[x] / 2**30:.2f}" for x in totals},
    }


if __name__ == "__main__":
    run_script(main)
