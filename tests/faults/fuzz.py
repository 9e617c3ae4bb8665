"""Feed every reader with bytes that are nearly right, and count what it makes of them.

    python tests/faults/fuzz.py --runs 12000                     random changes, by a plain generator
    python tests/faults/fuzz.py --runs 12000 --engine atheris    changes guided by what they reach (pip install atheris)

Each reader has a process of its own. One that crashes, takes more than `SECONDS` for an input or more than `MEMORY` in
all is a fault: the input is written beside, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

SECONDS, MEMORY = 10.0, 1 << 30


class Counted:
    """A reader that is counted."""

    def __init__(self, name: str) -> None:
        from readers import READERS

        self.reader, self.inputs, self.accepted, self.slowest = READERS[name], 0, 0, 0.0

    def __call__(self, data: bytes) -> None:
        self.inputs += 1
        start = time.perf_counter()
        try:
            self.accepted += self.reader.accepts(data)
        except BaseException:
            Path(f"fault-{self.reader.name}").write_bytes(data)
            raise
        finally:
            self.slowest = max(self.slowest, time.perf_counter() - start)

    def said(self) -> str:
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        facts = {"inputs": self.inputs, "accepted": self.accepted, "slowest": self.slowest, "memory": memory}
        return json.dumps({"reader": self.reader.name, **facts})


def feed(name: str, runs: int, seed: int) -> None:
    """With a plain generator."""
    from mutations import mutant

    counted, chance = Counted(name), random.Random(seed)
    signal.signal(signal.SIGALRM, _too_slow)
    for _ in range(runs):
        signal.setitimer(signal.ITIMER_REAL, SECONDS)
        counted(mutant(counted.reader.seeds, chance))
    signal.setitimer(signal.ITIMER_REAL, 0)
    print(counted.said(), flush=True)


def _too_slow(*_: object) -> None:
    raise TimeoutError(f"more than {SECONDS:g} s for one input")


def feed_guided(name: str, runs: int, seed: int) -> None:
    """With atheris, which never returns."""
    import atheris

    with atheris.instrument_imports(include=["ajest", "zipfile", "json", "numpy.lib", "PIL"]):
        counted = Counted(name)
    from mutations import mutant

    chance = random.Random(seed)

    def one(data: bytes) -> None:
        counted(data)
        if counted.inputs == runs:
            print(counted.said(), flush=True)

    def change(data: bytes, size: int, seed: int) -> bytes:
        chance.seed(seed)
        if chance.random() < 0.5:
            return atheris.Mutate(data, size)
        return mutant((data, *counted.reader.seeds), chance)[:size]

    longest = max(4096, *(2 * len(s) for s in counted.reader.seeds))
    quiet = ["-verbosity=0", f"-timeout={SECONDS:.0f}", f"-runs={runs}", f"-seed={seed + 1}", f"-max_len={longest}"]
    atheris.Setup([sys.argv[0], *quiet], one, custom_mutator=change)
    atheris.Fuzz()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("readers", nargs="*", help="names of readers.py; all without it")
    parser.add_argument("--runs", type=int, default=12000, help="inputs for each")
    parser.add_argument("--engine", choices=("plain", "atheris"), default="plain")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--alone", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.alone:
        warnings.simplefilter("ignore")
        (feed if options.engine == "plain" else feed_guided)(options.alone, options.runs, options.seed)
        return
    from readers import READERS

    print(f"| reader | inputs | accepted | slowest | peak memory |\n|{'---|' * 5}")
    total, faults = 0, []
    for name in options.readers or READERS:
        told = [f"--{k}={getattr(options, k)}" for k in ("runs", "engine", "seed")]
        done = subprocess.run(
            [sys.executable, __file__, *told, "--alone", name], capture_output=True, text=True, check=False
        )
        lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        if done.returncode or not lines or lines[0]["memory"] > MEMORY:
            faults.append(f"{name}: {(done.stderr.strip() or done.stdout.strip())[-2000:]}")
        for line in lines:
            total += line["inputs"]
            print(
                f"| {name} | {line['inputs']:,} | {line['accepted']:,} | {line['slowest'] * 1e3:.0f} ms "
                f"| {line['memory'] >> 20} MiB |",
                flush=True,
            )
    print(f"\n{total:,} inputs in all; {len(faults)} faults")
    for fault in faults:
        print(f"\n{fault}")
    raise SystemExit(bool(faults))


if __name__ == "__main__":
    main()
