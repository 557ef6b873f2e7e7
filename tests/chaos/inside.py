"""What is done to a process from inside, by a library that is loaded before libc (inside.c): a wrong clock, a full disk."""

import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path


def compiled(folder):
    """The library, built by the C compiler, which bifold's own build needs as well."""
    compiler = shutil.which("cc") or sys.exit("a C compiler (cc) is missing; on Debian: apt-get install build-essential")
    library = Path(folder) / "inside.so"
    source = Path(__file__).parent / "inside.c"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-Wall", "-o", library, source, "-ldl"], check=True, timeout=60)
    return library


class Inside:
    """One process's clock and disk. Both stay as they are over its restarts."""

    def __init__(self, library, folder, name, disk):
        self.clock, self.full = Path(folder) / f"{name}.clock", Path(folder) / f"{name}.full"
        # What the clock is wrong by all the time, in seconds.
        self.wrong_by = 0.0
        self.jump(0)
        names = {"LD_PRELOAD": library, "CHAOS_CLOCK": self.clock, "CHAOS_FULL": self.full, "CHAOS_DISK": Path(disk).resolve()}
        self.environment = {name: str(value) for name, value in names.items()}

    def jump(self, seconds):
        """The wall clock is that much ahead of where it stood at first; 0: it jumps back again."""
        number = os.open(self.clock, os.O_WRONLY | os.O_CREAT)
        os.pwrite(number, struct.pack("=q", int((self.wrong_by + seconds) * 1e9)), 0)
        os.close(number)

    def fill(self, how):
        """`blocks`: there is no new block; `all`: nothing can be made, written, renamed or flushed."""
        new = self.full.with_suffix(".new")
        new.write_text(how[0])
        new.rename(self.full)

    def free(self):
        self.full.unlink(missing_ok=True)
