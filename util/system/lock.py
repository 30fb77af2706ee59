"""One writer at a time: a lock on a folder, which the operating system frees when its process ends, however it ends.

On Unix it is a record lock (POSIX ``lockf``), on NFS too. It belongs to the process alone: loader workers which outlive a
killed run do not keep it, as they would keep the ``flock`` of the filelock package.
"""

import contextlib
import errno
import os
import platform
import sys
import time
from pathlib import Path
from typing import IO

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

NAME = ".lock"
NOT_THERE = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)  # what file systems without locks answer
FAR = 1 << 30  # Windows lets nobody read a locked byte: it is one behind the holder's name

_held: dict[Path, IO[bytes]] = {}  # this process's, by folder


def take(folder: Path) -> str | None:
    """Lock a folder for this process; it may hold the lock already.

    Returns:
        None; where another process holds it, that one's host, number and start.

    Raises:
        OSError: where the lock's file cannot be written, or the file system has no locks (:data:`NOT_THERE`).
    """
    folder = folder.resolve()
    while folder not in _held:
        file = open(folder / NAME, "a+b", buffering=0)  # noqa: SIM115 (it stays open as long as the lock)
        try:
            if not _lock(file):
                holder = file.read(200).decode("utf-8", "replace").strip()
                file.close()
                return holder or "another process"
            if not _is_there(file, folder / NAME):
                file.close()
                continue
            file.truncate(0)
            file.write(f"{platform.node()}, process {os.getpid()}, started {time.strftime('%Y-%m-%d %H:%M')}\n".encode())
        except OSError:
            file.close()
            raise
        _held[folder] = file
    return None


def release() -> None:
    """Free all that this process holds. What a killed process leaves is a file that locks nothing."""
    while _held:
        folder, file = _held.popitem()
        with contextlib.suppress(OSError):  # on Windows an open file stays
            (folder / NAME).unlink()
        file.close()


def _is_there(file: IO[bytes], path: Path) -> bool:
    """Whether a file that was opened still has its name: the one who held it may have removed it since."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _lock(file: IO[bytes]) -> bool:
    """Whether the file is ours now; False where another process has it."""
    try:
        if sys.platform == "win32":
            file.seek(FAR)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EAGAIN, errno.EACCES, errno.EDEADLK):
            raise
        return False
    finally:
        file.seek(0)
    return True
