"""Folders and zip archives as one thing: names and bytes, read in place, with limits; nothing outside is followed."""

from __future__ import annotations

import hashlib
import os
import re
import stat
import zipfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO

from ajest.errors import UserError, listed

from .formats import HEAD
from .zip_names import names_of

MAX_BYTES = 64 << 20  # of one file
MAX_LIST_BYTES = 384 << 20  # of a list of files: over a million images
_LISTS = (".json", ".jsonl", ".txt", ".csv", ".tsv")
MAX_FILES = 5_000_000
_JUNK = ("__MACOSX", "@eaDir", "$RECYCLE.BIN")  # folders that systems leave, some with thumbnails of the images
#: What the folder of a bench holds: figures in it are no images to learn.
_OF_A_BENCH = "bench.json"
_FOLLOW = "copy what it leads to (cp -rL)"


class Unreadable(Exception):
    """One file cannot be used; the message says why."""


def reason(error: Exception) -> str:
    """What an error of a library says, in one line and without addresses in memory."""
    lines = str(error).splitlines() or [type(error).__name__]
    return re.sub(r"<[^<>]* at 0x[0-9A-Fa-f]+>", "the file", lines[0])


@dataclass(frozen=True)
class Files:
    """What a folder or archive holds.

    Attributes:
        path: of the folder or archive.
        marks: by name inside: what tells that the content changed (size and CRC, or size and time).
        refused: names that are not read, with the reason.
        folders: names of all folders, empty ones too.
        read: the bytes of a name; raises Unreadable.
        head: the first bytes of a name, as many as tell what it is; b"" where it cannot be read.
        notes: on names that were read in a way that is not certain.
    """

    path: Path
    marks: dict[str, str]
    refused: dict[str, str]
    folders: frozenset[str]
    read: Callable[[str], bytes] = field(repr=False)
    head: Callable[[str], bytes] = field(repr=False)
    notes: tuple[str, ...] = ()

    def digest(self, names: list[str]) -> str:
        """Of the marks of some names."""
        lines = "\n".join(f"{name}\t{self.marks[name]}" for name in sorted(names))
        return hashlib.blake2b(lines.encode(errors="surrogateescape"), digest_size=16).hexdigest()


def open_files(path: Path) -> Files:
    """A folder, or a zip archive.

    Raises:
        UserError: there is nothing at the path, or it is neither.
    """
    if path.is_dir():
        if (path / _OF_A_BENCH).is_file():
            raise UserError(f"{path} is the folder of a bench ({_OF_A_BENCH} is in it): name a folder of images")
        return _folder(path)
    if not path.exists():
        raise UserError(f"{path} does not exist: name a folder, a .zip, .npz, .tar or .parquet file, hf:NAME or shapes")
    return _archive(path)


def hidden(name: str) -> bool:
    """Whether a file is one that systems leave beside those of people."""
    if "/." not in name and name[:1] != "." and not any(junk in name for junk in _JUNK):  # nearly all of thousands
        return False
    return any((part.startswith(".") and part != "..") or part in _JUNK for part in PurePosixPath(name).parts)


def leads_outside(name: str) -> bool:
    """Whether a name in an archive is that of a place outside it."""
    parts = name.split("/")
    return name.startswith("/") or ".." in parts or ":" in parts[0]


def limited(count: int, path: Path) -> None:
    """Raise a UserError for more files than are read."""
    if count > MAX_FILES:
        raise UserError(f"{path} holds more than {MAX_FILES:,} files: name a part of it")


def _folder(root: Path) -> Files:
    marks, refused, folders, stored = {}, {}, set[str](), {}
    benches: list[str] = []
    inside = root.resolve()
    for folder, subfolders, names in os.walk(root):  # does not follow links to folders
        at = Path(folder).relative_to(root)
        if _OF_A_BENCH in names:
            benches.append(at.as_posix())
            subfolders[:] = []
            continue
        subfolders[:] = [name for name in subfolders if not hidden(name)]
        for name in subfolders:
            key = (at / name).as_posix()
            if Path(folder, name).is_symlink():
                refused[key] = f"a link to a folder is not followed: {_FOLLOW}, or name the folders themselves"
            else:
                folders.add(key)
        for name in names:
            path = Path(folder, name)
            key = (at / name.replace("\\", "/")).as_posix()  # what a zip from Windows was unpacked to elsewhere
            if hidden(key):
                continue
            if path.is_symlink() and not path.resolve().is_relative_to(inside):
                refused[key] = f"a link that leads outside the folder is not followed: {_FOLLOW}"
                continue
            try:
                facts = path.stat()
            except OSError as error:
                refused[key] = error.strerror or str(error)
                continue
            if not stat.S_ISREG(facts.st_mode):
                refused[key] = "not a plain file"
            elif key in marks or ".." in key.split("/"):
                refused[key] = "its name, with \\ for /, is that of another place"
            else:
                marks[key] = f"{facts.st_size} {facts.st_mtime_ns}"
                stored[key] = path
        limited(len(marks), root)

    def read(name: str) -> bytes:
        try:
            with stored[name].open("rb") as file:
                return _bounded(file, name)
        except OSError as error:
            raise Unreadable(error.strerror or str(error)) from error

    def head(name: str) -> bytes:
        with suppress(OSError), stored[name].open("rb") as file:
            return file.read(HEAD)
        return b""

    folders -= set(benches)
    notes = (f"left out, as the folder of a bench is no part of the images: {listed(benches)}",) if benches else ()
    return Files(root, marks, refused, frozenset(folders), read, head, notes)


def most_bytes(name: str) -> int:
    """Bytes that a file of this name may have."""
    return MAX_LIST_BYTES if name.endswith(_LISTS) else MAX_BYTES


def _bounded(file: IO[bytes], name: str) -> bytes:
    data = file.read(most_bytes(name) + 1)
    if len(data) > most_bytes(name):
        raise Unreadable(f"more than {most_bytes(name) >> 20} MiB")
    return data


def _archive(path: Path) -> Files:
    try:
        archive = zipfile.ZipFile(path)
        members = archive.infolist()
    except zipfile.BadZipFile as error:
        raise UserError(
            f"{path} is neither a folder nor a whole zip archive ({error}): unpack other archives"
        ) from error
    except Exception as error:  # NotImplementedError, struct.error, UnicodeDecodeError: of a damaged directory anything
        raise UserError(f"{path} cannot be read as a zip archive: {error}") from error
    limited(len(members), path)
    marks, refused, infos, folders = {}, {}, {}, set[str]()
    names, notes = names_of(members)
    for info, name in zip(members, names, strict=True):
        if name in ("", ".") or hidden(name):
            continue
        parts, outside = name.split("/"), leads_outside(name)
        if not outside:
            folders.update("/".join(parts[:n]) for n in range(1, len(parts)))
        if name.endswith("/"):
            continue
        if outside:
            refused[name] = "its name leads outside the archive"
        elif stat.S_ISLNK(info.external_attr >> 16):
            refused[name] = "a link is not followed: zip what it leads to (zip -r, without -y)"
        elif info.flag_bits & 1:
            refused[name] = "it is encrypted"
        elif info.file_size > most_bytes(name):
            refused[name] = f"more than {most_bytes(name) >> 20} MiB"
        elif name in infos:
            refused[name] = "the archive holds it twice"
        else:
            infos[name] = info
            marks[name] = f"{info.file_size} {info.CRC}"

    def read(name: str) -> bytes:
        try:
            with archive.open(infos[name]) as file:
                return _bounded(file, name)
        except (OSError, zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
            raise Unreadable(f"damaged in the archive ({error})") from error
        except Exception as error:  # zlib.error, lzma.LZMAError: what decompressors raise has no common base
            raise Unreadable(f"cannot be decompressed ({error})") from error

    def head(name: str) -> bytes:
        with suppress(Exception), archive.open(infos[name]) as file:  # of damaged archives anything; `read` says it
            return file.read(HEAD)
        return b""

    return Files(path, marks, refused, frozenset(folders), read, head, notes)
