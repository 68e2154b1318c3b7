"""Files that stay whole if the process is killed at any instant, and that are read under limits.

A file is written under a temporary name in the same folder, flushed, fsynced and renamed, and the folder is fsynced.
The file then has either its old or its new content, never a mixture or a part. Only regular files of bounded size are
read, and symbolic links are not followed.
"""

import errno
import fcntl
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cnn_trainer.errors import StorageError

_TEMPORARY = re.compile(r"\.tmp-.*-[0-9]+-[0-9a-f]{8}", re.DOTALL)
# O_NONBLOCK, because opening a FIFO would wait for its other end.
NOT_FOLLOWED = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC

_REMEDIES = {
    errno.ENOSPC: "free some space on its disk",
    errno.EDQUOT: "free some of your quota on its disk",
    errno.EROFS: "use a writable place",
    errno.EACCES: "check the owner and the permissions of the file and of its folder",
    errno.EPERM: "check the owner and the permissions of the file and of its folder",
    errno.ENOENT: "check that it, or its folder, has not been moved or removed",
    errno.ENOTDIR: "a part of its path is a file; put a folder there",
    errno.EISDIR: "it is a folder; move it away",
    errno.ELOOP: "it is a symbolic link, which is not followed here; put the file itself there",
    errno.ENAMETOOLONG: "use a shorter name",
    errno.EIO: "check the disk",
}


@contextmanager
def reported(path: Path, deed: str, state: str = "") -> Iterator[None]:
    """Turn an OSError raised in the block into a StorageError.

    Args:
        path: The file or folder that the block works on.
        deed: What the block does to it, as a participle: ``"written"``.
        state: What is true after a failure; ends the message.
    """
    try:
        yield
    except OSError as error:
        remedy = _REMEDIES.get(error.errno or 0) or "try again, or use another place"
        end = f"; {state}" if state else ""
        raise StorageError(f"cannot be {deed}: {error.strerror or error}", place=path, remedy=remedy + end) from error


@contextmanager
def opened(path: Path, flags: int) -> Iterator[int]:
    """Open the file or folder at ``path`` and yield its descriptor, closed when the block ends. Raises OSError."""
    file = os.open(path, flags, 0o666)
    try:
        yield file
    finally:
        os.close(file)


def try_lock(file: int, shared: bool = False) -> bool:
    """Lock an open file until it is closed or the process ends. Returns False if another process holds the lock.

    Any number of processes can hold a ``shared`` lock. If the file system does not support flock, which may be the case
    for NFS and Lustre, a POSIX lock is taken instead. A POSIX lock does not exclude the process that holds it, is lost
    when that process closes any descriptor of the file, and requires the file to be open for writing, or for reading if
    ``shared``.

    Raises:
        OSError: if the file system supports neither kind of lock.
    """
    operation = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB
    try:
        fcntl.flock(file, operation)
    except BlockingIOError:
        return False
    except OSError as no_flock:
        try:
            fcntl.lockf(file, operation)
        except (BlockingIOError, PermissionError):  # POSIX allows either
            return False
        except OSError:
            raise no_flock from None
    return True


def write_atomic(path: Path, data: bytes) -> None:
    """Make ``data`` the whole content of the file at ``path``; it is on the disk when this returns.

    A symbolic link at ``path`` is replaced, not followed. Folders on the way to it may be links.

    Raises:
        StorageError: if the system refuses; the previous file at ``path`` is then intact, and no other file is left in
            the folder.
    """
    with reported(path, "written", "what was there before is intact"), opened(path.parent, _FOLDER) as folder:
        _replace(folder, path.name, data)
        state = "it was written, but a power failure may bring back what was there before"
        with reported(path, "synced to the disk", state):
            _sync(folder)


def _replace(folder: int, name: str, data: bytes) -> None:
    file, temporary = _create_temporary(folder, name)
    try:
        _write_all(file, data)
        os.fsync(file)
        os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary, dir_fd=folder)
        raise
    finally:
        os.close(file)


def _create_temporary(folder: int, name: str) -> tuple[int, str]:
    """Create a file that is locked while it is open, so that ``remove_stray`` can tell whether its writer is alive.

    A process id would not do: in a container every trainer is process 1.
    """
    for _ in range(10):
        temporary = f".tmp-{name[:40]}-{os.getpid()}-{os.urandom(4).hex()}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | NOT_FOLLOWED
        file = os.open(temporary, flags, 0o666, dir_fd=folder)
        try:
            if try_lock(file) and os.fstat(file).st_nlink:
                return file, temporary
        except OSError:  # this file system does not support locks
            return file, temporary
        os.close(file)  # remove_stray took the lock between the two calls and removes the file
    raise OSError(errno.EAGAIN, "temporary files vanish as soon as they are created")


def _write_all(file: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(file, left) :]


def _sync(folder: int) -> None:
    try:
        os.fsync(folder)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some file systems cannot fsync a folder
            raise


def sync_folder(path: Path) -> None:
    """Ensure that the names in the folder at ``path`` survive a power failure. Raises StorageError."""
    with reported(path, "synced to the disk"), opened(path, _FOLDER) as folder:
        _sync(folder)


def remove_stray(folder: Path) -> None:
    """Remove temporary files in ``folder`` whose writers have died; keep those of living writers. Never raises."""
    try:
        paths = list(folder.iterdir())
    except OSError:
        return
    for path in paths:
        if _TEMPORARY.fullmatch(path.name):
            with suppress(OSError), opened(path, os.O_RDWR | NOT_FOLLOWED) as file:
                if stat.S_ISREG(os.fstat(file).st_mode) and try_lock(file):
                    path.unlink()


def append_line(path: Path, line: str) -> None:
    """Append ``line`` (without a newline) to the text file at ``path``; it is on the disk when this returns.

    The file is created if it is missing. An incomplete last line, left by a killed writer, is cut off first.

    Raises:
        StorageError: if the system refuses, or ``path`` is not a regular file; the earlier lines are intact.
    """
    state = "its earlier lines are intact"
    with reported(path, "appended to", state), opened(path, os.O_RDWR | os.O_CREAT | NOT_FOLLOWED) as file:
        _require_regular(file, path)
        size = _size_of_whole_lines(file)
        try:
            os.ftruncate(file, size)
            os.lseek(file, size, os.SEEK_SET)
            _write_all(file, f"{line}\n".encode())
            os.fsync(file)
        except BaseException:
            with suppress(OSError):
                os.ftruncate(file, size)
            raise
        if not size:
            sync_folder(path.parent)


def _size_of_whole_lines(file: int) -> int:
    """Number of bytes up to and including the last newline."""
    end = os.fstat(file).st_size
    while end:
        start = max(0, end - 65_536)
        newline = os.pread(file, end - start, start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0


def _require_regular(file: int, path: Path) -> os.stat_result:
    status = os.fstat(file)
    if not stat.S_ISREG(status.st_mode):
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "a pipe, a socket or a device"
        raise StorageError(f"is {kind}, not a regular file", place=path, remedy="move it away")
    return status


def read_bounded(path: Path, limit: int) -> bytes:
    """Read the regular file at ``path``, which may have at most ``limit`` bytes. Symbolic links are not followed.

    Raises:
        StorageError: if the file is missing, too large, not a regular file or cannot be read.
    """
    data = b""
    with reported(path, "read"), opened(path, os.O_RDONLY | NOT_FOLLOWED) as file:
        size = _require_regular(file, path).st_size
        if size <= limit:
            with os.fdopen(file, "rb", closefd=False) as stream:
                data = stream.read(size + 1)  # one byte more shows that the file has grown
    found = max(size, len(data))
    if found > limit:
        raise StorageError(f"is too large: {found} bytes; at most {limit} are allowed", place=path)
    return data


def require_folder(path: Path) -> None:
    """Refuse anything but a folder; a symbolic link to a folder is refused too. Raises StorageError."""
    with reported(path, "read"):
        mode = path.lstat().st_mode
    if not stat.S_ISDIR(mode):
        kind = "a symbolic link, which is not followed here" if stat.S_ISLNK(mode) else "a file"
        raise StorageError(f"is {kind}, not a folder", place=path, remedy="put a folder there")
