"""Commands forked from a process that has imported them: a start costs no seconds of importing torch.

What differs from a start by a shell is only that: arguments, folder, environment, output and exit code are the
command's own. A few tests start it by its name as well.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path


class Forked:
    """The process that is forked; it starts with the first command and ends with the tests."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def run(self, words: list[str], cwd: Path | None, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
        """`ajest WORDS`, in a folder, with settings beside those of the tests' own environment."""
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            atexit.register(self.end)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with tempfile.TemporaryDirectory() as said:
            asked = {"words": words, "cwd": str(cwd or Path.cwd()), "said": said, "environment": environment}
            self._process.stdin.write(json.dumps(asked) + "\n")
            self._process.stdin.flush()
            code = int(self._process.stdout.readline())
            output, errors = ((Path(said) / name).read_text() for name in ("1", "2"))
        return subprocess.CompletedProcess(words, code, output, errors)

    def end(self) -> None:
        if self._process is not None:
            self._process.communicate()  # closes its input, which ends it
            self._process = None


FORKED = Forked()


def become(asked: dict) -> None:
    """The command itself, in the child. What is to be done at the end of an interpreter is done; taking apart all that
    was imported, a second's work, is not."""
    for descriptor in (1, 2):
        os.dup2(os.open(Path(asked["said"]) / str(descriptor), os.O_CREAT | os.O_WRONLY | os.O_APPEND), descriptor)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.chdir(asked["cwd"])
    os.environ |= asked["environment"]
    sys.argv = ["ajest", *asked["words"]]
    from ajest.cli.main import main

    code: int | str | None = 1
    try:
        main()
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
        child = os.fork()
        if not child:
            become(json.loads(line))
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    serve()
