"""Files and arguments by an enemy: how many of them does every reader refuse in one sentence?

    python benchmarks/reliability/hostile.py [ATTACK ...] [--share 1.0] [--seed 0]

Every try has 10 processor seconds, 1 GiB of memory, and an audit hook that sees programs started, pickles opened,
connections, and files written elsewhere. Lost: a traceback, more than a sentence, a hang, a bomb, a crash, or any of
those events.
"""

from __future__ import annotations

import argparse
import sys
import time

import torch

import attacks_on_data
import attacks_on_networks
import attacks_on_onnx
import attacks_on_texts
import sandbox
from rows import Row, rows_before, write_study

ATTACKS = (
    *attacks_on_networks.ATTACKS,
    *attacks_on_texts.ATTACKS,
    *attacks_on_data.ATTACKS,
    *attacks_on_onnx.ATTACKS,
)


def study(seed: int, only: list[str], share: float) -> list[Row]:
    """Run the attacks whose names have one of the words in them, or all."""
    rows = []
    for attack in ATTACKS:
        if only and not any(word in f"{attack.fault} {attack.where}" for word in only):
            continue
        started, tries = time.time(), max(1, round(attack.tries * share))
        found, wrong = sandbox.run(attack, tries, seed)
        print(f"{attack.fault}, {attack.where}: {dict(found)}, {time.time() - started:.0f} s", flush=True)
        print("".join(f"    {line}\n" for line in wrong), end="", flush=True)
        note = f"{found['refused']:,} refused in one sentence, {found['accepted']:,} sound enough to be used"
        rows.append(Row(attack.fault, attack.where, tries, tries - found["lost"], note))
    return rows


def main() -> int:
    """Run the attacks; all of them in full also write the results file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("only", nargs="*", metavar="ATTACK", help="words of the attacks to run; other rows stay")
    parser.add_argument("--share", type=float, default=1.0, help="share of the tries; below 1 nothing is written")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.share != 1:
        return int(any(row.lost for row in study(options.seed, options.only, options.share)))
    before = rows_before("hostile") if options.only else []

    def joined(seed: int) -> list[Row]:
        found = {(row.fault, row.where): row for row in study(seed, options.only, 1)}
        kept = {(row.fault, row.where): row for row in before} | found
        return [kept[attack.fault, attack.where] for attack in ATTACKS if (attack.fault, attack.where) in kept]

    return write_study("hostile", "Hostile files and arguments", options.seed, joined, partial=bool(options.only))


if __name__ == "__main__":
    sys.exit(main())
