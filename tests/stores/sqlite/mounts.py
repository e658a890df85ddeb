"""Small disks for tests that are root: a tmpfs of a size, and an ext4 on a file in a tmpfs, whose power can be cut."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

__all__ = ["Disk", "loop_disk", "tmpfs"]


def run(*command: str | os.PathLike[str]) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=60)


@contextmanager
def mounted(where: Path, *arguments: str | os.PathLike[str]) -> Iterator[Path]:
    """Mount something; it is gone afterwards, also if somebody still has a file open there."""
    where.mkdir()
    run("mount", *arguments, where)
    try:
        yield where
    finally:
        run("umount", "--lazy", where)
        where.rmdir()


@contextmanager
def tmpfs(where: Path, size: str) -> Iterator[Path]:
    """Memory of this size, as a folder. Skips the test where that may not be mounted."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to mount a tmpfs")
    try:
        mount = mounted(where, "-t", "tmpfs", "-o", f"size={size}", "tmpfs")
        folder = mount.__enter__()
    except subprocess.CalledProcessError as error:
        where.rmdir()
        pytest.skip(f"cannot mount a tmpfs here: {error.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        mount.__exit__(None, None, None)


class Disk:
    """An ext4 on a loop device, mounted at `folder`."""

    def __init__(self, ram: Path, image: Path, folder: Path) -> None:
        self._ram = ram
        self._image = image
        self.folder = folder

    @contextmanager
    def after_a_power_cut(self, name: str) -> Iterator[Path]:
        """What is on the disk at this moment, and not in the system's memory, mounted anew: the journal is replayed."""
        copy = self._ram / name
        shutil.copyfile(self._image, copy)
        with mounted(self.folder.with_name(name), "-o", "loop", copy) as folder:
            yield folder
        copy.unlink()


@contextmanager
def loop_disk(where: Path) -> Iterator[Disk]:
    """A disk of 64 MB. Skips the test where there are no loop devices, or no mkfs.ext4."""
    with ExitStack() as stack:
        ram = stack.enter_context(tmpfs(where / "ram", "256m"))
        if shutil.which("mkfs.ext4") is None:
            pytest.skip("needs mkfs.ext4")
        image = ram / "image"
        with image.open("wb") as file:
            file.truncate(64 << 20)
        run("mkfs.ext4", "-q", "-F", image)
        try:
            folder = stack.enter_context(mounted(where / "disk", "-o", "loop", image))
        except subprocess.CalledProcessError as error:
            (where / "disk").rmdir()
            pytest.skip(f"cannot mount a loop device here: {error.stderr.decode().strip()}")
        yield Disk(ram, image, folder)
