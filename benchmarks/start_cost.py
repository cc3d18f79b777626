"""CPU seconds of starting, in runs that take turns: `python benchmarks/start_cost.py [ROUNDS]`.

Writes `results/start_cost.json`: for each start the median of user and system time of a new
process, and its ratio to `import torch` of the same round.
"""

import json
import resource
import statistics
import subprocess
import sys
from pathlib import Path

from machine import machine

CLI = ["-m", "mma_mrnnet.cli"]
STARTS = {
    "python alone": ["-c", "pass"],
    "import torch": ["-c", "import torch"],
    "import mma_mrnnet": ["-c", "import mma_mrnnet"],
    "from mma_mrnnet import predict_video": ["-c", "from mma_mrnnet import predict_video"],
    "mma-mrnnet --help": [*CLI, "--help"],
    "mma-mrnnet --version": [*CLI, "--version"],
    "mma-mrnnet predict --help": [*CLI, "predict", "--help"],
    "mma-mrnnet predict, a wrong option": [*CLI, "predict", "clip.mp4", "--fps", "fast"],
}
RESULT = Path(__file__).parent / "results" / "start_cost.json"


def measure(words: list[str]) -> float:
    """Return the CPU seconds of a new Python process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *words], capture_output=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Measure every start in each round, and write the medians."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    runs = [{name: measure(words) for name, words in STARTS.items()} for _ in range(rounds)]
    results = {
        name: {
            "cpu_s": round(statistics.median(run[name] for run in runs), 3),
            "of_import_torch": round(
                statistics.median(run[name] / run["import torch"] for run in runs), 3
            ),
        }
        for name in STARTS
    }
    content = {"machine": machine(), "rounds": rounds, "starts": results}
    RESULT.write_text(json.dumps(content, indent=2) + "\n", "utf-8")
    for name, values in results.items():
        print(f"{name:40} {values['cpu_s']:6.3f} s  {values['of_import_torch']:6.3f}")


if __name__ == "__main__":
    main()
