"""Commands and scripts forked from a process that has imported torch: a start costs no seconds of importing it.

What differs from a start by a shell or by torchrun is only that, that a command's workers are forked from itself, and
that its figures are painted only where that is asked for: arguments, folder, environment, output and exit code are its
own. A few tests start `ajest` by its name, others torchrun itself, and benches that tests run in their own process have
workers as everywhere.
"""

from __future__ import annotations

import atexit
import gc
import json
import multiprocessing
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
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL import Image

#: Seconds after which a command hangs.
LONGEST = 600


class Begun:
    """A command at work, and what it has said. Left as a context, it is no more.

    Attributes:
        pids: of its processes.
        returncode: None until `poll` or `wait` has seen all of them end; then that of the first that did not end well.
    """

    def __init__(
        self, server: Forked, words: list[str], pids: list[int], said: tempfile.TemporaryDirectory[str]
    ) -> None:
        self.pids = pids
        self.returncode: int | None = None
        self._server, self._words, self._said = server, words, said

    @property
    def pid(self) -> int:
        return self.pids[0]

    @property
    def output(self) -> str:
        return (Path(self._said.name) / "1").read_text()

    @property
    def errors(self) -> str:
        return (Path(self._said.name) / "2").read_text()

    def poll(self) -> int | None:
        return self._ended(False)

    def wait(self) -> int:
        code = self._ended(True)
        assert code is not None
        return code

    def send_signal(self, number: int) -> None:
        """To all of its processes that have not ended."""
        if self.poll() is None:
            for pid in self.pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, number)

    def __enter__(self) -> Begun:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.send_signal(signal.SIGKILL)
        self.wait()
        self._said.cleanup()

    def _ended(self, wait: bool) -> int | None:
        if self.returncode is None:
            try:
                codes = self._server.ask({"pids": self.pids, "wait": wait})
            except TimeoutError:
                self.returncode = -signal.SIGKILL
                raise subprocess.TimeoutExpired(
                    self._words, LONGEST, self.output.encode(), self.errors.encode()
                ) from None
            if None not in codes:
                self.returncode = next((code for code in codes if code), 0)
        return self.returncode


class Forked:
    """The process that is forked; it starts with the first command and ends with the tests."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def run(self, *asked: Any, **how: Any) -> subprocess.CompletedProcess[str]:
        """A command to its end; takes what `start` does."""
        with self.start(*asked, **how) as begun:
            return subprocess.CompletedProcess(begun._words, begun.wait(), begun.output, begun.errors)

    def start(
        self,
        words: Sequence[object],
        cwd: Path | None = None,
        environment: Mapping[str, str] | None = None,
        processes: int = 1,
        painted: bool = False,
    ) -> Begun:
        """`ajest` or a script, with its arguments.

        Args:
            words: "ajest" or the path of a script, then arguments.
            cwd: folder in which it runs; None takes that of the tests.
            environment: settings beside those of the tests.
            processes: so many that know of each other, as torchrun starts them.
            painted: whether figures are painted, as people see them.
        """
        command, said = list(map(str, words)), tempfile.TemporaryDirectory()
        asked = {"words": command, "cwd": str(cwd or Path.cwd()), "said": said.name, "painted": painted}
        pids = self.ask(asked | {"all": dict(environment or {}), "each": places(processes)})
        return Begun(self, command, pids, said)

    def ask(self, what: Mapping[str, object]) -> list[Any]:
        """The answer of the process that is forked.

        Raises:
            TimeoutError: it has none, and is no more.
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
        self._process.stdin.write(json.dumps(what) + "\n")
        self._process.stdin.flush()
        if not select.select([self._process.stdout], [], [], LONGEST)[0]:
            os.killpg(self._process.pid, signal.SIGKILL)
            self.end()
            raise TimeoutError
        return json.loads(self._process.stdout.readline())

    def end(self) -> None:
        if self._process is not None:
            self._process.communicate()  # closes its input, which ends it
            self._process = None


FORKED = Forked()


def one_dot(_: Figure, dpi: int = 110) -> Image.Image:
    """In place of a figure, made but not painted: that takes longer than all else of a small bench."""
    from PIL import Image

    image = Image.new("RGB", (dpi, dpi), "white")
    image.putpixel((dpi // 2, dpi // 2), (0, 0, 0))
    return image


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


def become(words: list[str], cwd: str, said: Path, environment: dict[str, str], painted: bool) -> None:
    """The command itself, in the child. What is to be done at the end of an interpreter is done; taking apart all that
    was imported, a second's work, is not."""
    for descriptor in (1, 2):
        os.dup2(os.open(said / str(descriptor), os.O_CREAT | os.O_WRONLY | os.O_APPEND), descriptor)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.chdir(cwd)
    os.environ |= environment
    sys.argv = words
    code: int | str | None = 1
    from ajest.bench.report import drawing, figures
    from ajest.jobs import pool

    pool._context = lambda *_: multiprocessing.get_context("fork")
    if not painted:
        figures.rasterised = drawing.rasterised = one_dot
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


def begin(asked: dict[str, Any]) -> list[int]:
    """Its processes."""
    begun = []
    for own in asked["each"]:
        child = os.fork()
        if not child:
            become(asked["words"], asked["cwd"], Path(asked["said"]), asked["all"] | own, asked["painted"])
        begun.append(child)
    return begun


def code_of(pid: int, wait: bool) -> int | None:
    """The exit code of a process, None while it is at work. It may be asked for again."""
    if pid not in CODES:
        ended, status = os.waitpid(pid, 0 if wait else os.WNOHANG)
        if not ended:
            return None
        CODES[pid] = os.waitstatus_to_exitcode(status)
    return CODES[pid]


#: Exit codes of processes that have ended.
CODES: dict[int, int] = {}


def serve() -> None:
    # What a command, or the file of tests that a script reads, imports.
    import hypothesis  # noqa: F401
    import matplotlib.backends.backend_agg  # noqa: F401
    import pytest  # noqa: F401
    import scipy.stats  # noqa: F401
    import torch._dynamo  # by the first optimiser; the slowest of all

    import ajest.bench.report.page
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
        answer = begin(asked) if "words" in asked else [code_of(pid, asked["wait"]) for pid in asked["pids"]]
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    serve()
