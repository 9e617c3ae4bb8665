"""Tar archives, alone or as shards of one data set, read in place: nothing is extracted, no name or size is trusted."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import Path

from ajest.errors import UserError

from .files import Files, Unreadable, hidden, leads_outside, limited, most_bytes
from .formats import HEAD, is_image
from .splits import Split, roles_of, wanted_parts

_MOST_HEADER = 1 << 20  # bytes of a header that holds a long name
_LONG = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE)


class _Member(tarfile.TarInfo):
    """A member whose headers are of bounded size."""

    def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        if self.type in _LONG and self.size > _MOST_HEADER:
            raise tarfile.HeaderError("a header says that it is very long")
        return super()._proc_member(archive)  # type: ignore[misc]


def tar_files(path: Path) -> Files:
    """What a tar archive holds.

    Raises:
        UserError: it is compressed, damaged or holds too many files.
    """
    marks, refused, folders = dict[str, str](), dict[str, str](), set[str]()
    places: dict[str, tuple[int, int]] = {}
    facts = path.stat()
    for member in _members(path):
        name = member.name.removeprefix("./")
        if name in ("", ".") or hidden(name):
            continue
        parts = name.split("/")
        if leads_outside(name):
            refused[name] = "its name leads outside the archive"
            continue
        folders.update("/".join(parts[:n]) for n in range(1, len(parts)))
        if member.isdir():
            continue
        if not member.isreg() or member.issparse():
            refused[name] = "not a plain file: pack what it stands for"
        elif member.size > most_bytes(name):
            refused[name] = f"more than {most_bytes(name) >> 20} MiB"
        elif member.offset_data + member.size > facts.st_size:
            refused[name] = "the archive ends within it"
        elif name in places:
            refused[name] = "the archive holds it twice"
        else:
            places[name] = member.offset_data, member.size
            marks[name] = f"{member.size} {member.offset_data} {facts.st_mtime_ns}"
        limited(len(places), path)

    def part(name: str, most: int) -> bytes:
        offset, size = places[name]
        with path.open("rb") as file:
            file.seek(offset)
            return file.read(min(size, most))

    def read(name: str) -> bytes:
        size = places[name][1]
        try:
            data = part(name, size)
        except OSError as error:
            raise Unreadable(error.strerror or str(error)) from error
        if len(data) < size:
            raise Unreadable("the archive ends within it")
        return data

    return Files(path, marks, refused, frozenset(folders), read, lambda name: part(name, HEAD))


def _members(path: Path) -> Iterator[tarfile.TarInfo]:
    try:
        with tarfile.open(path, "r:", tarinfo=_Member, errors="surrogateescape") as archive:
            for member in archive:
                yield member
                archive.members.clear()  # type: ignore[attr-defined]  # of a million members, none is kept
            at = archive.offset
        with path.open("rb") as file:
            file.seek(at)
            if file.read(tarfile.BLOCKSIZE).strip(b"\0"):  # where the library would end without a word
                raise ValueError(f"it is damaged at byte {at:,}")
    except tarfile.ReadError as error:
        with path.open("rb") as file:
            start = file.read(6)
        packed = start.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd"))
        mend = "it is compressed: decompress it, so that it can be read in place" if packed else str(error)
        raise UserError(f"{path} cannot be read as a tar archive: {mend}") from error
    except Exception as error:  # HeaderError, UnicodeDecodeError, ValueError: of a damaged header anything
        raise UserError(f"{path} cannot be read as a tar archive: {error}") from error


def shards(files: Files, split: Split) -> Files | None:
    """The tar archives of a folder as one: shard's name and file's name together make a file's name. None where there
    are images beside them, or no archives.

    Raises:
        UserError: no archive is of this split; one cannot be read.
    """
    names = sorted(name for name in files.marks if name.lower().endswith(".tar"))
    if not names or any(map(is_image, files.marks)):
        return None
    roles = roles_of({_stem(name) for name in names})
    taken = set(wanted_parts(roles, split, str(files.path), "name the archives themselves")) if roles else set()
    chosen = [name for name in names if not roles or _stem(name) in taken]
    left = len(names) - len(chosen)
    notes = (
        (f"{len(chosen):,} of {len(names):,} archives are read: those of the other parts are left out",) if left else ()
    )
    return _as_one(files, [(_stem(name), tar_files(files.path / name)) for name in chosen], notes)


def _stem(name: str) -> str:
    return name.rpartition("/")[2][: -len(".tar")]


def _as_one(files: Files, parts: list[tuple[str, Files]], notes: tuple[str, ...]) -> Files:
    marks, refused, where = dict[str, str](), dict[str, str](), dict[str, tuple[Files, str]]()
    for stem, part in parts:
        for name in part.marks:
            folder, slash, base = name.rpartition("/")
            whole = f"{folder}{slash}{stem}-{base}"
            if whole in where:
                raise UserError(f"{files.path} holds {whole} twice: give each archive a name of its own")
            where[whole] = part, name
            marks[whole] = part.marks[name]
        refused.update({f"{stem}.tar: {name}": why for name, why in part.refused.items()})
    limited(len(where), files.path)
    folders = frozenset(folder for _, part in parts for folder in part.folders)

    def read(name: str) -> bytes:
        part, inner = where[name]
        return part.read(inner)

    def head(name: str) -> bytes:
        part, inner = where[name]
        return part.head(inner)

    return Files(files.path, marks, refused, folders, read, head, notes)
