"""`make fuzz`: every target, or some, for a time each."""

from __future__ import annotations

import argparse
import logging
import random
import sys
from pathlib import Path
from typing import Final

from fuzz.engine import Fuzzer, read_corpus, replace_corpus, write
from fuzz.targets import TARGETS

CORPUS: Final = Path(__file__).with_name("corpus")


def main(arguments: list[str]) -> int:
    """Run. Returns: exit code, 1 if there was a crash."""
    parser = argparse.ArgumentParser(prog="fuzz", description=__doc__)
    parser.add_argument("--target", action="append", choices=sorted(TARGETS), help="only this one; may be repeated")
    parser.add_argument("--seconds", type=float, default=60, help="for each target (s)")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1_000_000))
    parser.add_argument("--save", action="store_true", help="keep what reaches new lines, few and short, in the corpus")
    parser.add_argument("--input", type=Path, action="append", help="only run this file on the --target")
    chosen = parser.parse_args(arguments)
    logging.disable(logging.CRITICAL)
    failed = False
    for name in chosen.target or sorted(TARGETS):
        target = TARGETS[name]
        corpus = [file.read_bytes() for file in chosen.input] if chosen.input else read_corpus(CORPUS / name)
        fuzzer = Fuzzer(target, chosen.seed, corpus)
        if not chosen.input:
            fuzzer.fuzz(chosen.seconds)
        print(
            f"{name}: {fuzzer.runs} inputs, {len(fuzzer.seen)} edges, {len(fuzzer.kept)} kept, "
            f"{len(fuzzer.crashes)} crashes, seed {chosen.seed}",
            flush=True,
        )
        for crash in fuzzer.crashes.values():
            failed = True
            print(crash.describe(), f"kept in {write(CORPUS / name, 'crash-', crash.data)}", flush=True)
        if chosen.save:
            replace_corpus(CORPUS / name, fuzzer.smallest())
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
