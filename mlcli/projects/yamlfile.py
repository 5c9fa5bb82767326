"""YAML files read as plain data that still know on which line each key and value stands.

    document = read("MLproject")              # or parse(text, file) for text at hand
    document.data                             # dicts with str keys, lists, scalars as YAML 1.1 (and MLflow) sees them
    document.mark("entry_points", "main")     # (line, column) of that key, from 1
    document.value_mark("dependencies", 2)    # (line, column) of that value; list items by index
    document.written("parameters", "lr", "default")   # the scalar as the person wrote it, e.g. `010` where data has 8
    document.problems                         # warnings met on the way, e.g. an odd encoding

What cannot be read raises ProjectError with file, line, column and a fix.
"""

from __future__ import annotations

import codecs
import re
from typing import TYPE_CHECKING

import yaml

from mlcli.errors import ProjectError
from mlcli.projects.problem import WARNING, Problem

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_BYTES = 4 * 1024 * 1024
MAX_DEPTH = 60
MAX_VALUES = 100_000  # counted with aliases expanded: a bomb of a few lines means billions

# UTF-32 before UTF-16: the little-endian mark of the one begins with that of the other.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_TAG = "tag:yaml.org,2002:"
_SCALARS = frozenset(_TAG + kind for kind in ("str", "null", "bool", "int", "float", "timestamp", "value", "merge"))
_MERGE = _TAG + "merge"
_FAST = bool(getattr(yaml, "__with_libyaml__", False))


class Document:
    """One YAML file: its data and where everything in it stands."""

    def __init__(self, file: str, root: yaml.Node | None, data: object, problems: list[Problem]) -> None:
        self.file = file
        self.data = data
        self.problems = problems
        self._root = root

    def mark(self, *keys: str | int) -> tuple[int | None, int | None]:
        """Line and column of the key (or list item) at this path, or of the nearest part of the path that exists."""
        return _position(self._walk(keys)[0])

    def value_mark(self, *keys: str | int) -> tuple[int | None, int | None]:
        """Line and column of the value at this path, or of the nearest part of the path that exists."""
        return _position(self._walk(keys)[1])

    def written(self, *keys: str | int) -> str | None:
        """Give the scalar at this path as it was written, without its quotes; None for anything else."""
        node = self._walk(keys)[1]
        return str(node.value) if isinstance(node, yaml.ScalarNode) else None

    def quoted(self, *keys: str | int) -> bool:
        """Tell whether the scalar at this path stands in quotes or in a block, where YAML changes nothing."""
        node = self._walk(keys)[1]
        return isinstance(node, yaml.ScalarNode) and bool(node.style)

    def problem(self, level: str, code: str, message: str, *keys: str | int, hint: str = "") -> Problem:
        """Make a problem that stands at the key of this path."""
        line, column = self.mark(*keys)
        return Problem(level, code, message, self.file, line, column, hint)

    def _walk(self, keys: tuple[str | int, ...]) -> tuple[yaml.Node | None, yaml.Node | None]:
        key_node: yaml.Node | None = self._root
        node: yaml.Node | None = self._root
        for key in keys:
            found = _child(node, key)
            if found is None:
                break
            key_node, node = found
        return key_node, node


def read(path: str, *, file: str | None = None) -> Document:
    """Read the YAML file at ``path``; ``file`` is its name in messages."""
    problems: list[Problem] = []
    text = read_text(path, problems, file=file)
    return parse(text, file or path, problems)


def read_text(path: str, problems: list[Problem] | None = None, *, file: str | None = None) -> str:
    """Read a text file in whatever encoding it says; a guess is noted in ``problems``."""
    file = file or path
    try:
        with open(path, "rb") as stream:
            content = stream.read(MAX_BYTES + 1)
    except IsADirectoryError:
        raise ProjectError("this is a folder, not a file", file=file) from None
    except FileNotFoundError:
        raise ProjectError("no such file", file=file) from None
    except OSError as error:
        raise ProjectError(f"cannot be read: {error.strerror}", file=file, hint="check its permissions") from None
    if len(content) > MAX_BYTES:
        raise ProjectError(
            f"larger than {MAX_BYTES >> 20} MiB", file=file, hint="is it really the file that was meant?"
        )
    return decode(content, file, problems)


def decode(content: bytes, file: str, problems: list[Problem] | None = None) -> str:
    """Turn bytes into text: by its byte order mark, else UTF-8, else the locale's encoding with a warning."""
    encoding = next((name for mark, name in _MARKS if content.startswith(mark)), "utf-8")
    if encoding == "utf-8-sig":
        content, encoding = content[len(codecs.BOM_UTF8) :], "utf-8"
    line = column = None
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        if encoding == "utf-8":
            line, column = _line_and_column(content, error.start)
        reason = f"not valid {encoding.upper()}: byte 0x{content[error.start]:02x}"
    hint = "save the file as UTF-8"
    if encoding != "utf-8" or b"\0" in content:
        raise ProjectError(reason, file=file, line=line, column=column, hint=hint)
    import locale

    guess = locale.getpreferredencoding(False)
    if codecs.lookup(guess).name in ("utf-8", "ascii"):
        guess = "cp1252"  # where UTF-8 is the locale, a file that is not UTF-8 most often comes from Windows
    try:
        text = content.decode(guess)
    except UnicodeDecodeError:
        guess = "latin-1"
        text = content.decode(guess)
    if problems is not None:
        problems.append(Problem(WARNING, "encoding", f"{reason}; read as {guess}", file, line, column, hint))
    return text


def parse(text: str, file: str, problems: list[Problem] | None = None) -> Document:
    """Parse YAML (JSON is YAML, too) into a Document."""
    loader = (yaml.CSafeLoader if _FAST else yaml.SafeLoader)(text)
    try:
        root = loader.get_single_node()
        data = _Builder(file, loader).build(root) if root is not None else None
    except yaml.MarkedYAMLError as error:
        raise _explain(error, text, file) from None
    except yaml.reader.ReaderError as error:
        raise _unprintable(error, text, file) from None
    except RecursionError:
        raise ProjectError(f"nested deeper than {MAX_DEPTH} levels", file=file) from None
    finally:
        loader.dispose()
    return Document(file, root, data, [] if problems is None else problems)


class _Builder:
    """Makes plain data of nodes: each node once, so that aliases cost nothing; counts what they would cost."""

    def __init__(self, file: str, loader: yaml.SafeLoader | yaml.CSafeLoader) -> None:
        self._file = file
        self._loader = loader
        self._done: dict[int, tuple[object, int]] = {}
        self._open: set[int] = set()

    def build(self, node: yaml.Node) -> object:
        return self._build(node)[0]

    def _build(self, node: yaml.Node) -> tuple[object, int]:
        known = self._done.get(id(node))
        if known is not None:
            return known
        if isinstance(node, yaml.ScalarNode):
            result: tuple[object, int] = (self._scalar(node), 1)
        else:
            if id(node) in self._open:
                raise self._error("a value that contains itself", node, "remove the alias")
            if len(self._open) >= MAX_DEPTH:
                raise self._error(f"nested deeper than {MAX_DEPTH} levels", node)
            self._open.add(id(node))
            result = self._mapping(node) if isinstance(node, yaml.MappingNode) else self._sequence(node)
            self._open.discard(id(node))
        if result[1] > MAX_VALUES:
            raise self._error(f"aliases that stand for more than {MAX_VALUES:,} values", node, "write the values out")
        self._done[id(node)] = result
        return result

    def _scalar(self, node: yaml.ScalarNode) -> object:
        if node.tag == _TAG + "str":
            return node.value
        if node.tag not in _SCALARS:
            raise self._error(
                f"the tag `{_short(node.tag)}` is not allowed", node, "write a plain value; no YAML tag is ever run"
            )
        try:
            return self._loader.construct_object(node)
        except (ValueError, KeyError, OverflowError, yaml.constructor.ConstructorError):
            return node.value  # looks like a number or a date and is none, e.g. 2024-13-45: it is text

    def _sequence(self, node: yaml.Node) -> tuple[object, int]:
        if node.tag != _TAG + "seq":
            raise self._error(f"the tag `{_short(node.tag)}` is not allowed", node, "remove it")
        items = [self._build(item) for item in node.value]
        return [item for item, _ in items], 1 + sum(size for _, size in items)

    def _mapping(self, node: yaml.MappingNode) -> tuple[object, int]:
        if node.tag != _TAG + "map":
            raise self._error(f"the tag `{_short(node.tag)}` is not allowed", node, "remove it")
        own: dict[str, object] = {}
        first: dict[str, yaml.Node] = {}
        merged: dict[str, object] = {}
        total = 1
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise self._bad_key(key_node)
            value, size = self._build(value_node)
            total += size + 1
            if key_node.tag == _MERGE:
                sources = value if isinstance(value, list) else [value]
                for source in sources:
                    if not isinstance(source, dict):
                        raise self._error("`<<` needs a map", value_node, "write `<<: *name` with an anchor of a map")
                    merged.update({key: item for key, item in source.items() if key not in merged})
                continue
            self._scalar(key_node)  # refuses tags
            key = key_node.value
            if key in first:
                raise self._error(
                    f"`{key}` stands here twice; the first is on line {first[key].start_mark.line + 1}",
                    key_node,
                    "remove one of the two, or rename it",
                )
            first[key] = key_node
            own[key] = value
        return {**merged, **own}, total

    def _bad_key(self, node: yaml.Node) -> ProjectError:
        if isinstance(node, yaml.MappingNode) and node.flow_style:
            return self._error(
                "`{{ ... }}` here is a template that was never filled in",
                node,
                "replace it by its value, or put the whole value in quotes",
            )
        return self._error("a list or a map cannot be a key", node, "write `key: value`")

    def _error(self, message: str, node: yaml.Node, hint: str = "") -> ProjectError:
        line, column = _position(node)
        return ProjectError(message, file=self._file, line=line, column=column, hint=hint)


def _child(node: yaml.Node | None, key: str | int) -> tuple[yaml.Node, yaml.Node] | None:
    if isinstance(node, yaml.SequenceNode) and isinstance(key, int):
        return (node.value[key], node.value[key]) if 0 <= key < len(node.value) else None
    if not isinstance(node, yaml.MappingNode):
        return None
    for key_node, value_node in node.value:
        if key_node.tag != _MERGE and key_node.value == key:
            return key_node, value_node
    for source in _merged(node):
        found = _child(source, key)
        if found is not None:
            return found
    return None


def _merged(node: yaml.MappingNode) -> Iterator[yaml.Node]:
    seen: set[int] = set()
    for key_node, value_node in node.value:
        if key_node.tag != _MERGE:
            continue
        for source in value_node.value if isinstance(value_node, yaml.SequenceNode) else [value_node]:
            if id(source) not in seen:  # a list that names one source many times is walked once
                seen.add(id(source))
                yield source


def _position(node: yaml.Node | None) -> tuple[int | None, int | None]:
    return (node.start_mark.line + 1, node.start_mark.column + 1) if node is not None else (None, None)


def _short(tag: str) -> str:
    return tag.replace(_TAG, "!!")


def _line_and_column(content: bytes, position: int) -> tuple[int, int]:
    before = content[:position]
    line_start = before.rfind(b"\n") + 1
    return before.count(b"\n") + 1, len(before[line_start:].decode("utf-8", "replace")) + 1


def _unprintable(error: yaml.reader.ReaderError, text: str, file: str) -> ProjectError:
    found = re.search("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", text)
    if found is None:
        return ProjectError(f"not YAML: {error.reason}", file=file)
    before = text[: found.start()]
    return ProjectError(
        f"the control character U+{ord(found.group()):04X} is not allowed",
        file=file,
        line=before.count("\n") + 1,
        column=found.start() - (before.rfind("\n") + 1) + 1,
        hint="remove it; is this really a text file?",
    )


def _explain(error: yaml.MarkedYAMLError, text: str, file: str) -> ProjectError:
    """Say in the words of a person what the YAML parser says in its own."""
    problem, context = error.problem or "", error.context or ""
    lines = text.splitlines()
    context_place = _place(error.context_mark)
    place = _place(error.problem_mark) or context_place or (0, 0)
    line = lines[place[0]] if place[0] < len(lines) else ""
    message, hint = f"not YAML: {problem or context}", "check the indentation and the quotes around this line"
    if "\\t" in problem or "\t" in line[: len(line) - len(line.lstrip())]:
        message, hint = "a tab where YAML wants spaces", "replace the tab by spaces"
        if "\t" in line:
            place = (place[0], line.index("\t"))
    elif "quoted scalar" in context and ("end of stream" in problem or "document separator" in problem):
        place = context_place or place
        message, hint = "the quote that opens here is never closed", "add the closing quote at the end of the value"
    elif "unknown escape character" in problem:
        message = "a backslash inside double quotes starts an escape that YAML does not know"
        hint = r"write \\ for a backslash, or use single quotes"
    elif "mapping values are not allowed" in problem:
        message = "a `key: value` where none can stand"
        hint = "indent this line like its neighbours, or put a value that holds `: ` in quotes"
    elif "could not find expected ':'" in problem or (
        "did not find expected key" in problem and re.match(r"\s*[\w-]+:\S", line)
    ):
        place = context_place or place
        message, hint = "a line that is no `key: value`", "put a space after the colon, or quote or indent the line"
    elif "alias" in problem or "anchor" in problem:
        message = f"not YAML: {problem}"
        hint = "put a value that begins with `*` or `&` in quotes"
    elif "cannot start any token" in problem:
        message, hint = f"`{line[place[1] : place[1] + 1]}` cannot begin a plain value", "put the value in quotes"
    elif "flow" in context:
        place = context_place or place
        message = "the bracket that opens here is never closed, or a comma is missing after it"
        hint = "check the brackets and commas, and the quotes inside them"
    elif "another document" in problem or "single document" in context:
        message, hint = "a second document (`---`) where one is expected", "keep one document in the file"
    elif "did not find expected key" in problem or "expected <block end>" in problem:
        quote = _odd_quote(lines, place[0])
        if quote is not None:
            place = quote
            message, hint = "the quote that opens here is never closed", "add the closing quote at the end of the value"
        else:
            message = "a line that fits neither the lines above it nor a new key"
            hint = "indent it like its neighbours, and check the quotes of the line above"
    return ProjectError(message, file=file, line=place[0] + 1, column=place[1] + 1, hint=hint)


def _place(mark: yaml.Mark | None) -> tuple[int, int] | None:
    return None if mark is None else (mark.line, mark.column)


def _odd_quote(lines: list[str], last: int) -> tuple[int, int] | None:
    """Find the value at or above line ``last`` whose opening quote has no partner on its line."""
    for number in range(min(last, len(lines) - 1), -1, -1):
        found = re.match(r"""[^#'"]*?:\s+(["'])(.*)$""", lines[number])
        if found and found.group(1) not in found.group(2):
            return number, found.start(1)
    return None
