"""Commands and scripts forked from a process that has imported torch: a start costs no seconds of importing it.

What differs from a start by a shell or by torchrun is only that: arguments, folder, environment, output and exit code
are the command's own. A few tests start `ajest` by its name, and others torchrun itself.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path

#: Seconds after which a command hangs.
LONGEST = 300


class Forked:
    """The process that is forked; it starts with the first command and ends with the tests."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def run(
        self,
        words: Sequence[object],
        cwd: Path | None = None,
        environment: Mapping[str, str] | None = None,
        processes: int = 1,
    ) -> subprocess.CompletedProcess[str]:
        """`ajest` or a script, with its arguments.

        Args:
            words: "ajest" or the path of a script, then arguments.
            cwd: folder in which it runs; None takes that of the tests.
            environment: settings beside those of the tests.
            processes: so many that know of each other, as torchrun starts them.
        """
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, __file__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
            atexit.register(self.end)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        command = list(map(str, words))
        with tempfile.TemporaryDirectory() as said:
            asked = {"words": command, "cwd": str(cwd or Path.cwd()), "said": said, "all": dict(environment or {})}
            self._process.stdin.write(json.dumps(asked | {"each": places(processes)}) + "\n")
            self._process.stdin.flush()
            if not select.select([self._process.stdout], [], [], LONGEST)[0]:
                os.killpg(self._process.pid, signal.SIGKILL)
                self.end()
                raise subprocess.TimeoutExpired(command, LONGEST, *(Path(said, name).read_bytes() for name in "12"))
            code = int(self._process.stdout.readline())
            output, errors = ((Path(said) / name).read_text() for name in ("1", "2"))
        return subprocess.CompletedProcess(command, code, output, errors)

    def end(self) -> None:
        if self._process is not None:
            self._process.communicate()  # closes its input, which ends it
            self._process = None


FORKED = Forked()


def places(processes: int) -> list[dict[str, str]]:
    """What torchrun tells each of its processes; the port is free, and the first of them will listen there."""
    if processes == 1:
        return [{}]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    known = {"WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    each = [known | {"RANK": rank, "LOCAL_RANK": rank} for rank in range(processes)]
    return [{name: str(value) for name, value in one.items()} for one in each]


def become(words: list[str], cwd: str, said: Path, environment: dict[str, str]) -> None:
    """The command itself, in the child. What is to be done at the end of an interpreter is done; taking apart all that
    was imported, a second's work, is not."""
    for descriptor in (1, 2):
        os.dup2(os.open(said / str(descriptor), os.O_CREAT | os.O_WRONLY | os.O_APPEND), descriptor)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.chdir(cwd)
    os.environ |= environment
    sys.argv = words
    code: int | str | None = 1
    try:
        if words[0] == "ajest":
            from ajest.cli.main import main

            main()
        else:
            sys.path.insert(0, str(Path(words[0]).parent))
            runpy.run_path(words[0], run_name="__main__")
        code = 0
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))


def serve() -> None:
    import torch._dynamo  # by the first optimiser; the slowest of all

    import ajest.bench.run.bench
    import ajest.cli.bench
    import ajest.cli.evaluate
    import ajest.cli.sample
    import ajest.cli.train
    import ajest.tasks.images.setup
    import ajest.tasks.tree.task  # noqa: F401

    torch.set_num_threads(1)  # threads do not outlive a fork
    gc.freeze()  # nor need a child look through, and so copy, what it was born with
    for line in sys.stdin:
        asked = json.loads(line)
        begun = []
        for own in asked["each"]:
            child = os.fork()
            if not child:
                become(asked["words"], asked["cwd"], Path(asked["said"]), asked["all"] | own)
            begun.append(child)
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in begun]
        print(next((code for code in codes if code), 0), flush=True)


if __name__ == "__main__":
    serve()
