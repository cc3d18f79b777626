"""A process that is a user of the Hub double: the real client, with an environment of its own, one request a line.

Importing transformers takes seconds and reads the environment once, so many tests share one such process. A request is
a line of JSON: `words` for the command line or `code` to run (its `result` comes back), and the `token` to hold.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, Self

from hub_double import WRITER, HubDouble

ROOT = Path(__file__).resolve().parents[1]

SERVE = """
import contextlib, io, json, os, sys, time

import torch

import mma_mrnnet
from mma_mrnnet import cli

torch.set_num_threads(1)
sleep = time.sleep
time.sleep = lambda seconds: sleep(seconds / 100)  # waits between tries, the client's own and ours
names = {}
for line in sys.stdin:
    request = json.loads(line)
    os.environ.pop("HF_TOKEN", None)
    if request["token"] is not None:
        os.environ["HF_TOKEN"] = request["token"]
    out, err, code = io.StringIO(), io.StringIO(), 0
    names["result"] = None
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            if request["words"] is not None:
                code = cli.main(request["words"])
            else:
                exec(request["code"], names)
        except BaseException as error:
            code = f"{type(error).__name__}: {error}"
    said = {"code": code, "out": out.getvalue(), "err": err.getvalue(), "result": names["result"]}
    print(json.dumps(said), flush=True)
os._exit(0)  # nothing to tidy up
"""


class Said(NamedTuple):
    """What came of a request: exit code (of `code`: 0, or what was raised), both streams, and `result`."""

    code: int | str
    out: str
    err: str
    result: object


def environment(double: HubDouble, home: Path, **more: str) -> dict[str, str]:
    """Variables of a process that knows no Hub but the double, and has a cache of its own."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))
    }
    return {
        **kept,
        **{
            "HF_ENDPOINT": double.url,
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_OFFLINE": "0",
        },
        **{
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "OMP_NUM_THREADS": "1",
            "NO_PROXY": "127.0.0.1",
            **more,
        },
    }


class HubClient:
    """The process; it ends with the `with` block."""

    def __init__(self, variables: Mapping[str, str], folder: Path) -> None:
        self.log = folder / "client.log"
        self.process = subprocess.Popen(
            [sys.executable, "-c", SERVE],
            env={**variables, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log.open("w"),
            text=True,
            cwd=folder,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.stdin.close()
        self.process.wait(60)
        self.process.stdout.close()

    def ask(
        self, words: list[str] | None = None, code: str | None = None, token: str | None = WRITER
    ) -> Said:
        """Sends one request, and waits for what comes of it."""
        self.process.stdin.write(json.dumps({"words": words, "code": code, "token": token}) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, self.log.read_text()[-3000:]
        return Said(**json.loads(line))

    def command(self, *words: object, token: str | None = WRITER) -> Said:
        """Runs `mma-mrnnet` with these words."""
        return self.ask(words=[str(word) for word in words], token=token)

    def code(self, code: str, token: str | None = WRITER) -> Said:
        """Runs Python."""
        return self.ask(code=code, token=token)
