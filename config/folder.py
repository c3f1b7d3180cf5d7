"""A folder of resource files, read: which files there are, what objects they hold, what changed since the last look.

No clock, no events: `Folder.walk` and `Folder.reread` look when they are told to. Files are told apart by path, and the
first path that holds an object owns it; the same object in a second file is refused there, with the first file named.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Mapping

from attrs import evolve, field, frozen

from config.documents import Document, DocumentError, load_json, load_yaml, locate, parse_path, split
from config.parse import identify, parse_resource, unfold
from config.problems import Problem, ResourceError
from config.snapshot import Key, Put, Refuse, Remove, StoreChange

__all__ = ["SUFFIXES", "Entry", "FileContent", "Folder", "Found", "find_objects", "read_file", "read_text"]

SUFFIXES = (".yaml", ".yml", ".json")
LARGEST = 64 * 1024 * 1024
Signature = tuple[int, int, int, int, int]


@frozen
class Entry:
    """One object in a file: good (`change` is a Put) or refused."""

    key: Key
    change: Put | Refuse


@frozen
class FileContent:
    """What a file says. `unreadable`: at least one document could not be told at all, so nothing counts as removed."""

    entries: tuple[Entry, ...] = ()
    problems: tuple[Problem, ...] = ()
    """Of the file itself, and of documents whose object is not known."""
    notices: tuple[Problem, ...] = ()
    """Objects of kinds that are not read."""
    unreadable: bool = False
    known: Mapping[str, Entry] = field(factory=dict, repr=False)
    """By text, of documents that hold one good object and nothing to say of it: these need not be read again."""


@frozen
class _File:
    signature: Signature | None
    content: FileContent
    entries: Mapping[Key, Entry]
    """What it holds, with objects of an earlier, readable version that stay in force."""


def read_text(path: str) -> str:
    """A file's text. Raises OSError, or ValueError for what is no regular UTF-8 file of sensible size."""
    with open(path, "rb", opener=_opener) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("is no regular file")
        if status.st_size > LARGEST:
            raise ValueError(f"is larger than {LARGEST >> 20} MiB")
        data = file.read(LARGEST + 1)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"is not UTF-8 (octet {error.start + 1})") from None


def _opener(path: str, flags: int) -> int:
    # A FIFO among the files must not hold us up.
    return os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)


def read_file(path: str, known: Mapping[str, Entry] | None = None) -> FileContent:
    """Everything that a file holds; never raises. `known`: that of its former version."""
    try:
        text = read_text(path)
    except (OSError, ValueError) as error:
        reason = (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
        problem = Problem(
            object="", file=path, text=f"cannot be read: {reason}", allowed="a readable file of YAML or JSON"
        )
        return FileContent(problems=(problem,), unreadable=True)
    if not text.strip():
        words = "is empty; its earlier objects, if any, stay in force"
        problem = Problem(object="", file=path, text=words, allowed="objects, or no such file", refused=False)
        return FileContent(problems=(problem,), unreadable=True)
    return _parse(path, text, known or {})


@frozen
class Found:
    """One thing in a file: an object (`outcome` is an Entry), or why it is none that is read (a Problem)."""

    value: object
    outcome: Entry | Problem
    document: Document
    base: str = ""
    """Where in the document it is: "" or "items[3]"."""

    def placed(self, path: str, problem: Problem) -> Problem:
        """A problem of it with file and line."""
        return _placed(path, self.document, self.base, problem)


def find_objects(path: str, text: str, *, is_json: bool, known: Mapping[str, Entry] | None = None) -> Iterator[Found]:
    """Everything in a file's text, in order; an unreadable document is one thing, with a problem.

    Documents in `known` are not read again; their `value` is None.
    """
    for document in [Document(text, 0)] if is_json else split(text):
        if known and (entry := known.get(document.text)) is not None:
            yield Found(None, entry, document)
            continue
        try:
            value = (load_json if is_json else load_yaml)(document.text)
        except DocumentError as error:
            line = document.offset + error.line if error.line else document.offset + 1
            allowed = "one object of Calico's, as YAML or JSON"
            yield Found(None, Problem(object="", file=path, line=line, text=str(error), allowed=allowed), document)
            continue
        for item, base in unfold(value):
            if item is not None:
                yield Found(item, _object(path, document, item, base), document, base)


def _parse(path: str, text: str, known: Mapping[str, Entry]) -> FileContent:
    entries: list[Entry] = []
    clean: dict[str, Entry] = {}
    problems: list[Problem] = []
    notices: list[Problem] = []
    seen: set[Key] = set()
    unreadable = False
    for thing in find_objects(path, text, is_json=path.endswith(".json"), known=known):
        found = thing.outcome
        if isinstance(found, Entry):
            if found.key in seen:
                problems.append(_twice(path, thing.document, thing.base, found.key))
            else:
                seen.add(found.key)
                entries.append(found)
                if not thing.base and isinstance(found.change, Put) and not found.change.notices:
                    clean[thing.document.text] = found
        elif found.refused:
            problems.append(found)
            unreadable = True
        else:
            notices.append(found)
    return FileContent(tuple(entries), tuple(problems), tuple(notices), unreadable, clean)


def _object(path: str, document: Document, item: object, base: str) -> Entry | Problem:
    """An entry, or why the object's very kind or name is not known (refused), or not read (a notice)."""
    try:
        identity = identify(item)
    except ResourceError as error:
        return _placed(path, document, base, error.problems[0])
    if not identity.known:
        notice = Problem(object=identity.kind, field="kind", text=identity.not_read, refused=False)
        return _placed(path, document, base, notice)
    key = (identity.kind, identity.name)
    try:
        parsed = parse_resource(item)
    except ResourceError as error:
        return Entry(key, Refuse(key, tuple(_placed(path, document, base, problem) for problem in error.problems)))
    return Entry(key, Put(parsed.resource, tuple(_placed(path, document, base, n) for n in parsed.notices)))


def _placed(path: str, document: Document, base: str, problem: Problem) -> Problem:
    where = (*parse_path(base), *parse_path(problem.field))
    line = locate(document.text, where)
    return problem.at(path, document.offset + (line or 1))


def _twice(path: str, document: Document, base: str, key: Key) -> Problem:
    problem = Problem(
        object="/".join(key),
        field="metadata.name",
        value=key[1],
        text="is there twice in this file; the first one counts",
        allowed="each object once; delete one of the two",
    )
    return _placed(path, document, base, problem)


_NOTHING: Mapping[Key, Entry] = {}


class Folder:
    """The state of all files below a folder, and the store changes that lead from one look to the next."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.directories: set[str] = set()
        """Folders that were walked at the last scan."""
        self._files: dict[str, _File] = {}
        self._faulty: set[str] = set()
        """Files that `problems` has something to say of."""
        self._owners: dict[Key, list[str]] = {}

    def __len__(self) -> int:
        return len(self._owners)

    def walk(self) -> dict[str, Signature] | None:
        """Path and signature of every resource file below the root; None where the root itself cannot be read.

        Names that begin with a dot are passed over: they are editors' files, and the versions behind the symbolic
        links of a Kubernetes ConfigMap volume.
        """
        found: dict[str, Signature] = {}
        visited: set[tuple[int, int]] = set()
        self.directories = set()
        return found if self._walk(self.root, found, visited) else None

    def _walk(self, directory: str, found: dict[str, Signature], visited: set[tuple[int, int]]) -> bool:
        try:
            status = os.stat(directory)
            identity = (status.st_dev, status.st_ino)
            if identity in visited:
                return True
            visited.add(identity)
            with os.scandir(directory) as entries:
                names = sorted(entry.name for entry in entries if not entry.name.startswith("."))
        except OSError:
            return False
        self.directories.add(directory)
        for name in names:
            path = os.path.join(directory, name)
            try:
                status = os.stat(path)
            except OSError:
                continue
            if stat.S_ISDIR(status.st_mode):
                # A folder that cannot be read below the root holds back its files, as a file would.
                self._walk(path, found, visited)
            elif name.endswith(SUFFIXES):
                found[path] = _signature(status)
        return True

    def knows(self, path: str) -> bool:
        """Whether the file has been read before."""
        return path in self._files

    def changed(self, found: dict[str, Signature]) -> set[str]:
        """Paths that are new, gone, or differ from what was read."""
        changed = {path for path, signature in found.items() if self._signature(path) != signature}
        return changed | (self._files.keys() - found.keys())

    def _signature(self, path: str) -> Signature | None:
        file = self._files.get(path)
        return file.signature if file is not None else None

    def reread(self, paths: Iterable[str]) -> list[StoreChange]:
        """Read these files again and return what changes in the store."""
        before: dict[Key, Entry | None] = {}
        for path in sorted(paths):
            old = self._files.get(path)
            new = self._read(path, old)
            was, now = old.entries if old else _NOTHING, new.entries if new else _NOTHING
            # Of thousands of objects in a file, those that did not change are the same ones.
            changed = [key for key, entry in was.items() if now.get(key) is not entry]
            changed += now.keys() - was.keys()
            for key in changed:
                if key not in before:
                    before[key] = self._winner(key)
            self._replace(path, new, was.keys() - now.keys(), now.keys() - was.keys())
        return [change for key in sorted(before) for change in self._change(key, before[key])]

    def _read(self, path: str, old: _File | None) -> _File | None:
        try:
            status = os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError:
            status = None
        content = read_file(path, old.content.known if old is not None else None)
        entries = {entry.key: entry for entry in content.entries}
        if old is not None and content.unreadable:
            # What a partly unreadable version does not mention stays.
            entries |= {key: entry for key, entry in old.entries.items() if key not in entries}
        return _File(_signature(status) if status is not None else None, content, entries)

    def _replace(self, path: str, new: _File | None, gone: Iterable[Key], come: Iterable[Key]) -> None:
        for key in gone:
            owners = self._owners[key]
            owners.remove(path)
            if not owners:
                del self._owners[key]
        for key in come:
            owners = self._owners.setdefault(key, [])
            owners.append(path)
            owners.sort()
        if new is None:
            self._files.pop(path, None)
        else:
            self._files[path] = new
        if new is not None and (new.content.problems or new.content.notices):
            self._faulty.add(path)
        else:
            self._faulty.discard(path)

    def _winner(self, key: Key) -> Entry | None:
        """The entry that counts for an object, with other files that hold it among its notices."""
        owners = self._owners.get(key)
        if not owners:
            return None
        entry = self._files[owners[0]].entries[key]
        if len(owners) == 1:
            return entry
        others = tuple(
            Problem(
                object="/".join(key),
                file=path,
                text=f"is there twice; the one in {owners[0]} counts",
                allowed="each object once; delete one of the two",
                refused=False,
            )
            for path in owners[1:]
        )
        change = entry.change
        if isinstance(change, Put):
            return Entry(key, evolve(change, notices=change.notices + others))
        return Entry(key, evolve(change, problems=change.problems + others))

    def _change(self, key: Key, before: Entry | None) -> Iterator[StoreChange]:
        after = self._winner(key)
        if after == before:
            return
        yield Remove(key) if after is None else after.change

    def problems(self) -> tuple[Problem, ...]:
        """Faults of files, not of objects."""
        found: list[Problem] = []
        for path in sorted(self._faulty):
            found += self._files[path].content.problems
            found += self._files[path].content.notices
        return tuple(found)


def _signature(status: os.stat_result) -> Signature:
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
