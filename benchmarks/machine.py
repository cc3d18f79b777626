"""The machine that a benchmark ran on."""

import platform
from pathlib import Path


def machine() -> dict[str, str]:
    """Return the processor, the number of cores, and the version of Python."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.split(":")[1].strip() for line in lines if "model name" in line]
    processor = f"{names[0]}, {len(names)} cores seen" if names else platform.processor()
    return {"processor": processor, "python": platform.python_version()}
