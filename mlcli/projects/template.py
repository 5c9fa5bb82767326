"""An entry point and its values become an argument vector; values never enter shell text.

MLflow quotes each value, pastes it into the template and gives the result to ``bash -c``. A value that lands inside
the author's own quotes is then run as code. Here the template is compiled once, aware of quotes, and the values travel
as arguments:

    in the template               in the script given to bash -c          why
    python x.py {a}               python x.py "${_mlcli1}"                one word, whatever it holds
    python x.py "m/{a}"           python x.py "m/${_mlcli1}"
    python x.py 'm/{a}'           python x.py 'm/'"${_mlcli1}"''
    $(( {n} + 1 ))                $(( ${_mlcli1} + 1 ))                   bash evaluates it: only a number may pass
    bash -c "train {a}"           bash -c "train ${_mlcli1}"              for the inner shell the value is quoted

The script begins by naming its arguments (``_mlcli1=$1; ... shift``), so that functions, ``set --`` and ``shift`` of
the author find the arguments MLflow would have left them: none. A command without shell syntax needs no shell: it is
split into words and run directly.
"""

from __future__ import annotations

import os
import re
import shlex
from typing import TYPE_CHECKING, NamedTuple, Union

from mlcli.errors import InvalidInput, ProjectError
from mlcli.projects import parameters as values_of
from mlcli.projects.problem import similar

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from mlcli.projects.download import Download
    from mlcli.projects.mlproject import EntryPoint

MAX_ARGUMENT = 128 * 1024 - 1  # Linux: MAX_ARG_STRLEN, with the NUL at its end
MAX_NESTING = 40

_SHELL_ONLY = frozenset("|&;<>()$`*?[]{}~\n")
_BUILTINS = frozenset(
    ". : ! [[ (( { } alias bg break builtin caller case cd command compgen complete continue coproc declare dirs disown do"
    " done elif else enable esac eval exec exit export fc fg fi for function getopts hash help history if in jobs let local"
    " logout mapfile popd pushd read readarray readonly return select set shift shopt source suspend then time times trap"
    " type typeset ulimit umask unalias unset until wait while echo printf test [ true false kill pwd".split()
)
_SHELLS = frozenset(("sh", "bash", "dash", "zsh", "ksh"))
_BEFORE_COMMAND = frozenset("then do else elif if while until for ! { time command builtin exec nohup".split())
_DECLARING = frozenset("declare typeset local readonly export unset read mapfile".split())
_NUMBER = re.compile(r"[-+]?[0-9][0-9A-Za-z.#]*", re.ASCII)
_PLAIN = re.compile(r"[A-Za-z0-9_@%+=:,./-]*", re.ASCII)
_COMPARISON = re.compile(r"-(eq|ne|lt|le|gt|ge)")


class Command(NamedTuple):
    """What is run: ``argv``; ``text`` for people; ``parameters`` raw as recorded; ``notes`` worth a line each.

    ``downloads`` must be fetched before it starts.
    """

    argv: tuple[str, ...]
    text: str
    parameters: dict[str, str]
    notes: tuple[str, ...]
    downloads: tuple[Download, ...] = ()


class Ref(NamedTuple):
    """A ``{name}`` in a template."""

    name: str


Item = Union[str, Ref]  # one character, or one placeholder


class Use(NamedTuple):
    """A placeholder where it stands: ``form`` says what may pass there, ``context`` which quotes are around it.

    form       the value                                   context     the reference
    value      as it is                                    plain       "${v}"
    quoted     quoted for an inner shell                   double      ${v}    (also here-documents)
    word       only if it means nothing to a shell         single      '"${v}"'
    number     only if it is a number                      ansi        '"${v}"$'
    """

    name: str
    form: str
    context: str


Piece = Union[str, Use]


def compile_command(
    entry: EntryPoint,
    given: Mapping[str, str],
    folder: str,
    *,
    file: str | None = None,
    storage_dir: str | None = None,
) -> Command:
    """Check ``given`` against the entry point and make its command; starts and writes nothing."""
    if not entry.command.strip() and entry.script is None:
        raise ProjectError(
            f"the entry point `{entry.name}` has no command",
            file=file,
            line=entry.line,
            hint='add a line like `command: "python train.py"`',
        )
    values = values_of.resolve(entry, given, folder, file, storage_dir)
    try:
        argv, text = build(entry.command, values.resolved, values.extras)
    except TemplateError as error:
        raise ProjectError(error.message, file=file, line=entry.line, hint=error.hint) from None
    notes = (entry.note, *values.notes) if entry.note else values.notes
    return Command(argv, text, values.recorded, notes, values.downloads)


class TemplateError(InvalidInput):
    """A command template that cannot be compiled; the caller knows the file."""


def build(template: str, values: Mapping[str, str], extras: Mapping[str, str]) -> tuple[tuple[str, ...], str]:
    """Compile ``template`` with ``values``; append ``extras`` as `` --key value``. Give argv and a text for people."""
    items = _trim(parse_template(template, values))
    words = split_words(items)
    tail = [part for name, value in extras.items() for part in (f"--{name}", value)]
    if words is not None:
        argv = [_join(word, values) for word in words]
        text = " ".join(shlex.quote(part) for part in (*argv, *tail))
        return _sized((*argv, *tail)), text
    scan = Scanner(items)
    pieces = scan.pieces()
    if tail and scan.open_end:
        raise TemplateError(
            f"{scan.open_end} at the end of the command leaves no place to append {', '.join(tail[::2])}",
            hint="declare these parameters and use them in the command",
        )
    for number, part in enumerate(tail):
        name = f"\0{number}"
        values = {**values, name: part}
        pieces += [" ", Use(name, "value", "plain")]
    script, arguments = _script(pieces, values)
    return _sized(("bash", "-c", script, "bash", *arguments)), "".join(_shown(piece, values) for piece in pieces)


def placeholders(template: str, names: Collection[str]) -> list[str]:
    """The parameters that ``template`` uses, in order; raises as compiling would."""
    items = _trim(parse_template(template, names))
    if split_words(items) is None:
        Scanner(items).pieces()
    return [item.name for item in items if isinstance(item, Ref)]


# --- the template: braces


def parse_template(template: str, names: Collection[str]) -> list[Item]:
    """Split a template as ``str.format`` reads it: ``{name}`` is a placeholder, ``{{`` and ``}}`` are braces."""
    if "\0" in template:
        raise TemplateError("the command holds a NUL character")
    items: list[Item] = []
    position = 0
    while position < len(template):
        char = template[position]
        if template.startswith(("{{", "}}"), position):
            items.append(char)
            position += 2
        elif char == "{":
            end = template.find("}", position)
            items.append(_placeholder(template, position, end, names))
            position = end + 1
        elif char == "}":
            raise TemplateError(
                f"a single `}}` in the command, {_near(template, position)}", hint="write `}}` twice: `}}}}`"
            )
        else:
            items.append(char)
            position += 1
    return items


def _placeholder(template: str, start: int, end: int, names: Collection[str]) -> Ref:
    name = template[start + 1 : end] if end >= 0 else ""
    literal = template[start : end + 1] if end >= 0 else "{"
    dollar = re.search(r"(?<!\\)(\\\\)*\$\Z", template[:start]) is not None
    if end < 0:
        raise TemplateError(
            f"the `{{` is never closed, {_near(template, start)}", hint="for a brace of its own write it twice: `{{`"
        )
    for form in (name, re.sub(r"(!s)?(:s?)?\Z", "", name)):
        if form in names:
            if dollar:
                raise TemplateError(
                    f"`${literal}` in the command can mean two things",
                    hint=f"write `{literal}` for the parameter, or `${{{literal}}}` for a variable of the shell",
                )
            return Ref(form)
    doubled = f"`{'$' * dollar}{{{literal}}}`"
    if dollar or not re.fullmatch(r"[\w. -]+", name):
        raise TemplateError(
            f"`{'$' * dollar}{literal}` in the command is read as a parameter, and there is none of that name",
            hint=f"if braces are meant, double them: {doubled}",
        )
    base = re.split(r"[!:.\[]", name)[0]
    meant = base if base in names else similar(name, names)
    known = ", ".join(f"`{known}`" for known in names) or "none"
    hint = (
        f"did you mean `{{{meant}}}`?" if meant else f"declared: {known}; if braces are meant, double them: {doubled}"
    )
    raise TemplateError(f"the command uses `{literal}`, which is not a declared parameter", hint=hint)


def _near(template: str, position: int) -> str:
    return f"near `{template[max(0, position - 12) : position + 12].strip()}`"


def _trim(items: list[Item]) -> list[Item]:
    """Drop blanks at both ends, and a line continuation that continues to nothing."""
    start, end = 0, len(items)
    while start < end and items[start] in (" ", "\t", "\n", "\r"):
        start += 1
    while end > start and items[end - 1] in (" ", "\t", "\n", "\r"):
        newline = items[end - 1] == "\n"
        end -= 1
        if newline and end > start and items[end - 1] == "\\":
            slashes = 0
            while end - slashes > start and items[end - slashes - 1] == "\\":
                slashes += 1
            end -= slashes % 2
            if slashes % 2 == 0:
                break
    return items[start:end]


# --- commands that need no shell


def split_words(items: Sequence[Item]) -> list[list[Item]] | None:
    """Split into words as a shell would; None when the command needs a shell."""
    words: list[list[Item]] = []
    word: list[Item] | None = None
    quote = ""
    position = 0
    while position < len(items):
        item = items[position]
        position += 1
        following = items[position] if position < len(items) else None
        if item == "\\" and following == "\n" and quote != "'":
            position += 1
            continue
        if not quote and item in (" ", "\t"):
            if word is not None:
                words.append(word)
            word = None
            continue
        word = [] if word is None else word
        if quote == "'" or isinstance(item, Ref):
            if item == quote:
                quote = ""
            else:
                word.append(item)
        elif item == quote and quote:
            quote = ""
        elif not quote and item in ("'", '"'):
            quote = item
        elif item == "\\":
            if following is None or (isinstance(following, Ref) and quote):
                word.append("\\")
            elif isinstance(following, Ref) or (quote and following not in '$`"\\'):
                word += [] if isinstance(following, Ref) else ["\\"]
            else:
                word.append(following)
                position += 1
        elif item in ("$", "`") or (not quote and (item in _SHELL_ONLY or (item == "#" and not word))):
            return None
        else:
            word.append(item)
    if quote:
        raise TemplateError(f"the command opens a {quote} and never closes it", hint="add the closing quote")
    if word is not None:
        words.append(word)
    if not words:
        return None
    texts = ["".join(item if isinstance(item, str) else "\0" for item in word) for word in words]
    if not texts[0] or texts[0] in _BUILTINS or re.search(r"[=/\0\r]", texts[0]):
        return None  # with a slash: a file without `#!` is a script to a shell, and nothing to the kernel
    for number, text in enumerate(texts):
        if "\0" in text and (texts[0] == "ssh" or text.startswith("--wrap=") or _runs_text(texts[:number])):
            return None
    return words


def _join(word: Sequence[Item], values: Mapping[str, str]) -> str:
    return "".join(item if isinstance(item, str) else values[item.name] for item in word)


# --- commands that need one


class Scanner:
    """Reads shell text just closely enough to know, at each placeholder, which quotes are around it.

    Where it is mistaken, a value may be split into words or keep a quote too many; it is never run.
    """

    def __init__(self, items: Sequence[Item]) -> None:
        self._items = items
        self._position = 0
        self._out: list[Piece] = []
        self._words: list[str] = []  # finished words of the simple command at hand
        self._word: str | None = None  # the text of the word at hand, a placeholder as \0
        self._heredocs: list[tuple[str, bool, bool, int]] = []
        self._depth = 0
        self._test = False  # between [[ and ]]
        self.open_end = ""

    def pieces(self) -> list[Piece]:
        self._code("")
        if self._heredocs:
            raise TemplateError(f"the here-document `{self._heredocs[0][0]}` has no text", hint="add its lines")
        return self._out

    # the small moves

    def _peek(self, ahead: int = 0) -> Item | None:
        position = self._position + ahead
        return self._items[position] if position < len(self._items) else None

    def _starts(self, text: str) -> bool:
        return all(self._peek(number) == char for number, char in enumerate(text))

    def _take(self, count: int = 1) -> str:
        taken = "".join(item for item in self._items[self._position : self._position + count] if isinstance(item, str))
        self._position += count
        self._out.append(taken)
        return taken

    def _grow(self, text: str) -> None:
        self._word = (self._word or "") + text

    def _end_word(self) -> None:
        if self._word is not None:
            self._test = self._word != "]]" if self._test else self._word == "[[" and not self._command()
            self._words.append(self._word)
        self._word = None

    def _end_command(self) -> None:
        self._end_word()
        self._words = []

    def _command(self) -> list[str]:
        """Give the words of the simple command so far, without what may stand before it."""
        start = 0
        while start < len(self._words) and (
            self._words[start] in _BEFORE_COMMAND or re.match(r"\w+=", self._words[start])
        ):
            start += 1
        return self._words[start:]

    def _unclosed(self, what: str) -> TemplateError:
        return TemplateError(f"the command opens {what} and never closes it", hint="add the closing one")

    def _inside(self, read: Callable[[], None]) -> None:
        """Read a nested command; the simple command around it goes on afterwards."""
        if self._depth >= MAX_NESTING:
            raise TemplateError(f"the command nests deeper than {MAX_NESTING} levels")
        words, word = self._words, self._word
        self._words, self._word = [], None
        self._depth += 1
        read()
        self._depth -= 1
        self._words, self._word = words, (word or "") + "\0"

    def _use(self, item: Ref, context: str, form: str = "value") -> None:
        if form == "value":
            form = self._form()
        self._out.append(Use(item.name, form, context))
        self._grow("\0")
        self._position += 1

    def _form(self) -> str:
        """What may pass into the word at hand: shells inside, ``eval`` and arithmetic see more than a text in it."""
        words, word = self._command(), self._word or ""
        first, last = (words[0], words[-1]) if words else ("", "")
        if first == "eval":
            return _inner(" ".join([*words[1:], word]))
        if first == "trap" or (first == "ssh" and len(words) > 1) or _runs_text(words):
            return _inner(word)
        if word.startswith("--wrap="):
            return _inner(word[len("--wrap=") :])
        if first == "let" or (first in _DECLARING and any(re.fullmatch(r"-\w*i\w*", option) for option in words)):
            return "number"
        if re.match(r"\w+\[[^\]]*\Z", word) and (not words or first in _DECLARING):
            return "number"  # the index of an array
        if first in _DECLARING and "=" not in word:
            return "word"
        if last in ("-v", "-R") and (self._test or first in ("[", "test", "printf")):
            return "word"
        if self._test and (any(map(_COMPARISON.fullmatch, words)) or self._comparison_follows()):
            return "number"
        return "value"

    def _comparison_follows(self) -> bool:
        rest = "".join(item if isinstance(item, str) else "\0" for item in self._items[self._position + 1 :])
        return re.search(r"\s-(eq|ne|lt|le|gt|ge)\s", rest.partition("]]")[0]) is not None

    # the contexts

    def _code(self, end: str) -> None:
        """Read commands up to ``end``: nothing, a closing parenthesis or a backtick."""
        parens = cases = 0
        while (item := self._peek()) is not None:
            if isinstance(item, Ref):
                self._use(item, "plain")
            elif item == end and not parens and not cases + self._case_words():
                self._end_command()
                self._take()
                return
            elif item == "\\":
                self._escape()
            elif item in "'\"":
                self._quote(item)
            elif item in "$`":
                self._dollar(in_double=False)
            elif item == "#" and self._word is None:
                self._comment()
            elif item == "<" and self._starts("<<") and not self._starts("<<<"):
                self._heredoc()
            elif self._starts("<<<"):
                self._end_word()
                self._take(3)
            elif item in "<>" and self._peek(1) == "(":
                self._take(2)
                self._inside(lambda: self._code(")"))
            elif self._starts("((") and self._word is None and not self._command():
                self._take(2)
                self._arithmetic("))")
            elif item in " \t\r":
                cases += self._case_words()
                self._end_word()
                self._take()
            elif item == "\n":
                cases += self._case_words()
                self._end_command()
                self._take()
                self._bodies()
            elif item in ";|&":
                cases += self._case_words()
                self._end_command()
                self._take()
            elif item == "(":
                parens += 1
                self._end_command()
                self._take()
            elif item == ")":
                cases += self._case_words()
                parens -= 1 if parens else 0
                self._end_command()
                self._take()
            else:
                self._grow(item)
                self._take()
        if end:
            raise self._unclosed("a `$(`" if end == ")" else "a backtick")

    def _case_words(self) -> int:
        if self._command():
            return 0
        return {"case": 1, "esac": -1}.get(self._word or "", 0)

    def _escape(self) -> None:
        following = self._peek(1)
        if isinstance(following, Ref):  # the backslash would bite the quote that is put there
            self._position += 1
        elif following is None:
            self.open_end = "a backslash"
            self._take()
        else:
            if following != "\n":
                self._grow(following)
            self._take(2)

    def _quote(self, mark: str) -> None:
        self._grow("")
        self._take()
        if mark == '"':
            self._double()
        else:
            self._single("single", "'")

    def _single(self, context: str, end: str) -> None:
        while (item := self._peek()) != end:
            if item is None:
                raise self._unclosed("a single quote")
            if isinstance(item, Ref):
                self._use(item, context)
            elif context == "ansi" and item == "\\" and not isinstance(self._peek(1), Ref):
                self._grow(self._take(2))
            else:
                self._grow(self._take())
        self._take()

    def _double(self) -> None:
        while (item := self._peek()) != '"':
            if item is None:
                raise self._unclosed("a double quote")
            self._expanding(item, "double")
        self._take()

    def _expanding(self, item: Item, context: str) -> None:
        """Read one item where ``$``, backtick and backslash are special and nothing else is."""
        if isinstance(item, Ref):
            self._use(item, context)
        elif item == "\\":
            following = self._peek(1)
            if isinstance(following, Ref):  # a backslash of its own: it must not bite the dollar that is put there
                self._out.append("\\")
                self._grow(self._take())
            elif following is not None and following in '$`"\\\n':
                self._grow(following.strip("\n"))
                self._take(2)
            else:
                self._grow(self._take())
        elif item in "$`":
            self._dollar(in_double=True)
        else:
            self._grow(self._take())

    def _dollar(self, *, in_double: bool) -> None:
        if self._starts("$(("):
            self._take(3)
            self._arithmetic("))")
        elif self._starts("$["):
            self._take(2)
            self._arithmetic("]")
        elif self._starts("$("):
            self._take(2)
            self._inside(lambda: self._code(")"))
        elif self._starts("`"):
            self._take()
            self._inside(lambda: self._code("`"))
        elif self._starts("${"):
            self._take(2)
            self._expansion(in_double=in_double)
        elif self._starts("$'") and not in_double:
            self._take(2)
            self._grow("")
            self._single("ansi", "'")
        elif isinstance(self._peek(1), Ref):
            raise TemplateError(
                "a `$` directly before a parameter can mean two things",
                hint=r"write `\$` for a dollar sign, or take it away",
            )
        else:
            self._take()
            self._grow("\0")

    def _expansion(self, *, in_double: bool) -> None:
        """Read ``${name...}`` up to its brace."""
        named = False
        while (item := self._peek()) != "}":
            if item is None:
                raise self._unclosed("a `${`")
            if isinstance(item, Ref):
                if not named:
                    raise TemplateError("a parameter cannot name a variable of the shell inside `${`")
                self._use(item, "double" if in_double else "plain", "number" if self._subscript() else "value")
            elif item == "'" and not in_double:
                self._quote("'")
            elif item == '"':
                self._quote('"')
            elif item in "\\$`":
                self._expanding(item, "double")
            else:
                named = named or item not in "#!"
                self._take()
        self._take()
        self._grow("\0")

    def _subscript(self) -> bool:
        before = "".join(piece if isinstance(piece, str) else "\0" for piece in self._out[-200:])
        inside = before[before.rfind("${") + 2 :]
        return re.match(r"[#!]?\w+(\[[^\]]*\Z|:(?![-=+?]))", inside) is not None

    def _arithmetic(self, end: str) -> None:
        depth = 0
        while (item := self._peek()) is not None:
            if isinstance(item, Ref):
                self._use(item, "double", "number")
            elif not depth and self._starts(end):
                self._take(len(end))
                self._grow("\0")
                return
            elif item in "$`":
                self._dollar(in_double=True)
            else:
                depth += {"(": 1, ")": -1}.get(item, 0)
                self._take()
        raise self._unclosed("`((`" if end == "))" else "`$[`")

    def _comment(self) -> None:
        self.open_end = "a comment"
        while (item := self._peek()) is not None:
            if item == "\n":
                self.open_end = ""
                return
            if isinstance(item, Ref):  # nobody reads it there
                self._out.append(f"{{{item.name}}}".replace("\n", " "))
                self._position += 1
            else:
                self._take()

    # here-documents

    def _heredoc(self) -> None:
        self._end_word()
        strip = self._starts("<<-")
        self._take(3 if strip else 2)
        while self._peek() in (" ", "\t"):
            self._take()
        start = self._position
        while (item := self._peek()) is not None and not (isinstance(item, str) and item in " \t\n;|&<>()"):
            self._position += 1
        raw = self._items[start : self._position]
        if not raw or any(isinstance(item, Ref) for item in raw):
            raise TemplateError("a here-document (`<<`) needs a plain word as its end mark", hint="write `<<EOF`")
        written = "".join(item for item in raw if isinstance(item, str))
        word = re.sub(r"""['"\\]""", "", written)
        self._heredocs.append((word, written != word, strip, len(self._out)))
        self._out.append(written)

    def _bodies(self) -> None:
        for word, quoted, strip, place in self._heredocs:
            end, after = self._body_end(word, strip)
            body = self._items[self._position : end]
            if not quoted:
                self._body(end)
            elif any(isinstance(item, Ref) for item in body):
                if not re.fullmatch(r"\w+", word):
                    raise TemplateError(f"the here-document `{word}` needs a plain word as its end mark")
                self._out[place] = word  # unquoted, so that values can be put in; what the quotes kept is escaped
                for item in body:
                    self._out.append(
                        Use(item.name, "value", "heredoc")
                        if isinstance(item, Ref)
                        else f"\\{item}"
                        if item in "\\$`"
                        else item
                    )
                self._position = end
            else:
                self._take(end - self._position)
            self._take(after - end)
            if self._peek() is None:
                self.open_end = "a here-document"
        self._heredocs = []

    def _body_end(self, word: str, strip: bool) -> tuple[int, int]:
        start = self._position
        while start < len(self._items):
            stop = start
            while stop < len(self._items) and self._items[stop] != "\n":
                stop += 1
            line = "".join(item if isinstance(item, str) else "\0" for item in self._items[start:stop])
            if (line.lstrip("\t") if strip else line) == word:
                return start, min(stop + 1, len(self._items))
            start = stop + 1
        raise TemplateError(f"the here-document `{word}` is never closed", hint=f"add a line with only {word}")

    def _body(self, end: int) -> None:
        whole, self._items = self._items, self._items[:end]
        while (item := self._peek()) is not None:
            self._expanding(item, "heredoc")
        self._items = whole
        self._word = None


def _runs_text(words: Sequence[str]) -> bool:
    """Tell whether the next word is the text of a shell: ``docker run x bash -o pipefail -c``, ``su user -c``."""
    if not words or not re.fullmatch(r"-\w*c", words[-1]):
        return False
    for number, word in enumerate(words):
        if word == "su":
            return True
        if os.path.basename(word) in _SHELLS:
            options = words[number + 1 :]
            return all(o[:1] in ("-", "+") or options[i - 1][:2] in ("-o", "+o", "-O") for i, o in enumerate(options))
    return False


def _inner(script: str) -> str:
    """What may pass into the text of an inner shell, ``script`` being that text so far."""
    scan = Scanner([*script.replace("\0", "x"), Ref("")])
    try:
        uses = [piece for piece in scan.pieces() if isinstance(piece, Use)]
    except TemplateError:
        return "word"  # inside quotes of the inner shell: quoting the value would not help
    plain = len(uses) == 1 and uses[0].context == "plain" and uses[0].form == "value"
    return "quoted" if plain else "word"


def _script(pieces: Sequence[Piece], values: Mapping[str, str]) -> tuple[str, list[str]]:
    numbers: dict[tuple[str, str], int] = {}
    arguments: list[str] = []
    body: list[str] = []
    for piece in pieces:
        if isinstance(piece, str):
            body.append(piece)
            continue
        _permit(piece, values[piece.name])
        key = (piece.name, "quoted" if piece.form == "quoted" else "value")
        if key not in numbers:
            value = values[piece.name]
            arguments.append(shlex.quote(value) if piece.form == "quoted" else value)
            numbers[key] = len(arguments)
        body.append(_reference(piece.context, f"${{_mlcli{numbers[key]}}}"))
    names = " ".join(f"_mlcli{number}=${{{number}}}" for number in range(1, len(arguments) + 1))
    prelude = f"{names}; shift {len(arguments)}; " if arguments else ""
    return prelude + "".join(body), arguments


def _reference(context: str, variable: str) -> str:
    if context == "plain":
        return f'"{variable}"'
    if context in ("single", "ansi"):
        return f"'\"{variable}\"{'$' * (context == 'ansi')}'"
    return variable


def _permit(use: Use, value: str) -> None:
    if use.form == "number" and not _NUMBER.fullmatch(value):
        raise TemplateError(
            f"the command calculates with `{use.name}`, and `{value}` is not a number", hint="give it a number"
        )
    if use.form == "word" and not _PLAIN.fullmatch(value):
        raise TemplateError(
            f"the command puts `{use.name}` into the text of another shell, which would run parts of `{value}`",
            hint="call the program directly, or keep to letters, digits and _@%+=:,./-",
        )


def _shown(piece: Piece, values: Mapping[str, str]) -> str:
    """The piece as a person would type it."""
    if isinstance(piece, str):
        return piece
    value = shlex.quote(values[piece.name]) if piece.form == "quoted" else values[piece.name]
    if piece.context == "plain":
        return shlex.quote(value)
    if piece.context == "single":
        return value.replace("'", "'\\''")
    if piece.context == "ansi":
        return value.replace("\\", "\\\\").replace("'", "\\'")
    if piece.context == "double":
        return re.sub(r'([\\$`"])', r"\\\1", value)
    return re.sub(r"([\\$`])", r"\\\1", value)


def _sized(argv: tuple[str, ...]) -> tuple[str, ...]:
    for part in argv:
        if len(part) > MAX_ARGUMENT // 4 and len(os.fsencode(part)) > MAX_ARGUMENT:
            raise TemplateError(
                f"an argument of {len(os.fsencode(part)):,} bytes; a program takes {MAX_ARGUMENT:,} at most",
                hint=f"put it into a file and give the file's path; it begins {part[:40]!r}",
            )
    return argv
