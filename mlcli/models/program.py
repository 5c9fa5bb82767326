"""Reads a pickle as the program that it is, without running it: what it names, what it calls, on what it sets state.

The reader follows the machine of the pickle module, stack, marks and memo, with stand-ins for whatever would be made. A
rule book is asked before each step that could do something: see models/pickles.py for the one that decides what loads
unasked. What a program of an unusual kind could do (persistent ids, extension codes, classes of protocol 0) is not followed: it
is a :class:`Strange` one.
"""

from __future__ import annotations

from struct import Struct
from typing import Any, Callable, Dict, Iterable, List, NamedTuple, Optional, Protocol, Tuple, Union


class Damaged(Exception):
    """The bytes are no pickle, or not all of one."""


class Strange(Exception):
    """The pickle uses something that this reader does not follow."""


class Named(NamedTuple):
    """Something that the pickle names: it will be imported."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


class Bytes(NamedTuple):
    """Some bytes; of the content no more than its size is of interest."""

    size: int


class Made:
    """What a call in the pickle would give; ``state`` is what was set on it, ``times`` how often."""

    __slots__ = ("args", "by", "keywords", "state", "times")

    def __init__(self, by: Any, args: Any, keywords: Any = None) -> None:
        self.by, self.args, self.keywords = by, args, keywords
        self.state: Any = None
        self.times = 0


class Box:
    """A list, dict or set that the pickle fills; of a dict the first items are kept, under keys that are text."""

    __slots__ = ("items", "kind", "size")
    KEPT = 256

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.size = 0
        self.items: Dict[str, Any] = {}

    def put(self, values: List[Any]) -> None:
        if self.kind != "dict":
            self.size += len(values)
            return
        if len(values) % 2:
            raise Damaged("a key without a value")
        self.size += len(values) // 2
        if self.size <= self.KEPT:
            for key, value in zip(values[::2], values[1::2]):
                self.items[key if isinstance(key, str) else repr(key)] = value


class Rules(Protocol):
    """Asked before each step; raises to refuse it."""

    def name(self, named: Named) -> None: ...

    def call(self, func: Any, args: Any, keywords: Any, *, new: bool) -> None:
        """``new`` says that a bare instance is made, as ``func.__new__(func, *args)``."""

    def set_state(self, made: Any, state: Any) -> None: ...

    def keep(self, named: Named) -> None:
        """A name is put into something that stays, and not given to a call."""

    def fill(self, made: Made) -> None:
        """Items are put into something that is no plain list, dict or set."""

    def outside(self) -> None:
        """Something is taken from outside of the pickle, by a persistent id."""


class Free:
    """The rule book that allows everything: for looking only."""

    def name(self, named: Named) -> None:
        pass

    def call(self, func: Any, args: Any, keywords: Any, *, new: bool) -> None:
        pass

    def set_state(self, made: Any, state: Any) -> None:
        pass

    def keep(self, named: Named) -> None:
        pass

    def fill(self, made: Made) -> None:
        pass

    def outside(self) -> None:
        pass


_HOLD_NAMES = frozenset((Named, tuple))
MAX_PROTOCOL = 5
_INT4, _UINT2, _UINT4, _UINT8, _FLOAT = Struct("<i"), Struct("<H"), Struct("<I"), Struct("<Q"), Struct(">d")


def read(content: Union[bytes, memoryview], rules: Rules) -> Any:
    """Follow the pickle to its end; returns the stand-in of what it would give."""
    return _Machine(memoryview(content), rules).run()


class _Machine:
    def __init__(self, content: memoryview, rules: Rules) -> None:
        self.content = content
        self.rules = rules
        self.at = 0
        self.stack: List[Any] = []
        self.below: List[List[Any]] = []  # the stacks under the marks
        self.memo: Dict[int, Any] = {}

    def run(self) -> Any:
        content, steps = self.content, _STEPS
        try:
            while True:
                step = content[self.at]
                self.at += 1
                if step == 0x2E:  # STOP
                    if self.below:
                        raise Damaged("it ends inside of something")
                    result = self.stack.pop()
                    self.kept((result,))
                    return result
                found = steps[step]
                if found is None:
                    known = _NOT_FOLLOWED.get(step)
                    if known:
                        raise Strange(f"it uses {known}")
                    raise Damaged(f"{step:#04x} at {self.at - 1} is no step of a pickle")
                found(self)
        except (IndexError, KeyError, ValueError) as error:
            raise Damaged(f"it breaks off or is garbled at byte {self.at}: {type(error).__name__}") from None

    # -- reading

    def take(self, size: int) -> memoryview:
        end = self.at + size
        if size < 0 or end > len(self.content):
            raise Damaged(f"it breaks off after {len(self.content)} bytes")
        part = self.content[self.at : end]
        self.at = end
        return part

    def number(self, form: Struct) -> Any:
        return form.unpack(self.take(form.size))[0]

    def line(self) -> str:
        rest = self.content[self.at : self.at + 4096].tobytes()
        end = rest.index(b"\n")
        self.at += end + 1
        return rest[:end].decode("utf-8", "surrogateescape")

    def text(self, size: int) -> None:
        self.stack.append(str(self.take(size), "utf-8", "surrogatepass"))

    def skip(self, size: int) -> None:
        self.take(size)
        self.stack.append(Bytes(size))

    def marked(self) -> List[Any]:
        """The items above the last mark, which goes."""
        items = self.stack
        self.stack = self.below.pop()
        return items

    # -- steps

    def proto(self) -> None:
        version = self.take(1)[0]
        if version > MAX_PROTOCOL:
            raise Damaged(f"there is no pickle protocol {version}")

    def frame(self) -> None:
        self.take(8)

    def mark(self) -> None:
        self.below.append(self.stack)
        self.stack = []

    def pop(self) -> None:
        if self.stack:
            self.stack.pop()
        else:
            self.marked()

    def dup(self) -> None:
        self.stack.append(self.stack[-1])

    def pop_mark(self) -> None:
        self.marked()

    def memoize(self) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def binput(self) -> None:
        self.memo[self.take(1)[0]] = self.stack[-1]

    def long_binput(self) -> None:
        self.memo[self.number(_UINT4)] = self.stack[-1]

    def binget(self) -> None:
        self.stack.append(self.memo[self.take(1)[0]])

    def long_binget(self) -> None:
        self.stack.append(self.memo[self.number(_UINT4)])

    def put(self) -> None:
        self.memo[int(self.line())] = self.stack[-1]

    def get(self) -> None:
        self.stack.append(self.memo[int(self.line())])

    def text_int(self) -> None:
        word = self.line()
        self.stack.append({"00": False, "01": True}.get(word) if word in ("00", "01") else int(word))

    def text_long(self) -> None:
        self.stack.append(int(self.line().rstrip("L")))

    def text_float(self) -> None:
        self.stack.append(float(self.line()))

    def text_unicode(self) -> None:
        self.stack.append(self.line())

    def long1(self) -> None:
        self.stack.append(int.from_bytes(self.take(self.take(1)[0]), "little", signed=True))

    def tuple_(self) -> None:
        items = tuple(self.marked())
        self.stack.append(items)

    def tuple1(self) -> None:
        self.stack[-1:] = [(self.stack[-1],)]

    def tuple2(self) -> None:
        self.stack[-2:] = [(self.stack[-2], self.stack[-1])]

    def tuple3(self) -> None:
        self.stack[-3:] = [(self.stack[-3], self.stack[-2], self.stack[-1])]

    def box(self, kind: str) -> None:
        found = Box(kind)
        values = self.marked()
        self.kept(values)
        found.put(values)
        self.stack.append(found)

    def kept(self, values: Iterable[Any]) -> None:
        """Tell the rules of the names among ``values``, those inside of tuples too."""
        inner = [value for value in values if type(value) in _HOLD_NAMES]
        while inner:
            value = inner.pop()
            if type(value) is Named:
                self.rules.keep(value)
            else:
                inner += [item for item in value if type(item) in _HOLD_NAMES]

    def fill(self, values: List[Any], kinds: Tuple[str, ...]) -> None:
        target = self.stack[-1]
        self.kept(values)
        if isinstance(target, Box) and target.kind in kinds:
            target.put(values)
        elif isinstance(target, Made):
            self.rules.fill(target)
        else:
            raise Damaged("something is put into what holds nothing")

    def append(self) -> None:
        value = self.stack.pop()
        self.fill([value], ("list",))

    def setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self.fill([key, value], ("dict",))

    def named(self, module: Any, name: Any) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            raise Damaged("a name that is no text")
        found = Named(module, name)
        self.rules.name(found)
        self.stack.append(found)

    def global_(self) -> None:
        module, name = self.line(), self.line()
        self.named(module, name)

    def stack_global(self) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self.named(module, name)

    def call(self, keywords: Any, *, new: bool) -> None:
        args, func = self.stack.pop(), self.stack.pop()
        self.rules.call(func, args, keywords, new=new)
        self.stack.append(Made(func, args, keywords))

    def newobj_ex(self) -> None:
        self.call(self.stack.pop(), new=True)

    def persistent(self) -> None:
        pid = self.stack.pop()
        self.rules.outside()
        self.stack.append(Made(None, pid))

    def build(self) -> None:
        state = self.stack.pop()
        target = self.stack[-1]
        self.kept((state,))
        self.rules.set_state(target, state)
        if isinstance(target, Made):
            target.state = state
            target.times += 1


def _pushed(value: Any) -> Callable[[_Machine], None]:
    return lambda machine: machine.stack.append(value)


def _number(form: Struct) -> Callable[[_Machine], None]:
    return lambda machine: machine.stack.append(machine.number(form))


_BY_CODE: Dict[bytes, Callable[[_Machine], None]] = {
    b"\x80": _Machine.proto,
    b"\x95": _Machine.frame,
    b"(": _Machine.mark,
    b"0": _Machine.pop,
    b"1": _Machine.pop_mark,
    b"2": _Machine.dup,
    b"\x94": _Machine.memoize,
    b"q": _Machine.binput,
    b"r": _Machine.long_binput,
    b"h": _Machine.binget,
    b"j": _Machine.long_binget,
    b"p": _Machine.put,
    b"g": _Machine.get,
    b"N": _pushed(None),
    b"\x88": _pushed(True),
    b"\x89": _pushed(False),
    b"I": _Machine.text_int,
    b"L": _Machine.text_long,
    b"F": _Machine.text_float,
    b"V": _Machine.text_unicode,
    b"J": _number(_INT4),
    b"K": lambda machine: machine.stack.append(machine.take(1)[0]),
    b"M": _number(_UINT2),
    b"G": _number(_FLOAT),
    b"\x8a": _Machine.long1,
    b"\x8c": lambda machine: machine.text(machine.take(1)[0]),
    b"X": lambda machine: machine.text(machine.number(_UINT4)),
    b"\x8d": lambda machine: machine.text(machine.number(_UINT8)),
    b"C": lambda machine: machine.skip(machine.take(1)[0]),
    b"B": lambda machine: machine.skip(machine.number(_UINT4)),
    b"\x8e": lambda machine: machine.skip(machine.number(_UINT8)),
    b"\x96": lambda machine: machine.skip(machine.number(_UINT8)),
    b")": _pushed(()),
    b"t": _Machine.tuple_,
    b"\x85": _Machine.tuple1,
    b"\x86": _Machine.tuple2,
    b"\x87": _Machine.tuple3,
    b"]": lambda machine: machine.stack.append(Box("list")),
    b"}": lambda machine: machine.stack.append(Box("dict")),
    b"\x8f": lambda machine: machine.stack.append(Box("set")),
    b"l": lambda machine: machine.box("list"),
    b"d": lambda machine: machine.box("dict"),
    b"\x91": lambda machine: machine.box("frozenset"),
    b"a": _Machine.append,
    b"e": lambda machine: machine.fill(machine.marked(), ("list",)),
    b"s": _Machine.setitem,
    b"u": lambda machine: machine.fill(machine.marked(), ("dict",)),
    b"\x90": lambda machine: machine.fill(machine.marked(), ("set",)),
    b"c": _Machine.global_,
    b"\x93": _Machine.stack_global,
    b"R": lambda machine: machine.call(None, new=False),
    b"\x81": lambda machine: machine.call(None, new=True),
    b"\x92": _Machine.newobj_ex,
    b"Q": _Machine.persistent,
    b"b": _Machine.build,
}
_STEPS: List[Optional[Callable[[_Machine], None]]] = [_BY_CODE.get(bytes([code])) for code in range(256)]
_NOT_FOLLOWED = {
    ord("P"): "a persistent id",
    ord("i"): "classes of protocol 0",
    ord("o"): "classes of protocol 1",
    0x82: "an extension code",
    0x83: "an extension code",
    0x84: "an extension code",
    0x8B: "a number of any length",
    0x97: "a buffer from outside",
    0x98: "a buffer from outside",
    ord("S"): "text of Python 2",
    ord("T"): "text of Python 2",
    ord("U"): "text of Python 2",
}
