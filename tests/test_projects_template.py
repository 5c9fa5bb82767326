"""Commands: whatever a value holds, it arrives as it is, and nothing of it is ever run."""

from __future__ import annotations

import os
import re
import subprocess
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlcli.projects.template import MAX_ARGUMENT, TemplateError, build

SHOW = "env printf '%s\\0'"  # a real program that prints each of its arguments

HOSTILE = [
    "plain", "a b", "", "$(touch PWN)", "`touch PWN`", "';touch PWN;'", '";touch PWN;"', "a\nb", "\\", "\\\\", "*", "~",
    "$HOME", "!!", "-x", "--", "é☃", "\t", "a'b\"c", "${IFS}", "{x}", "#c", "&&touch PWN", "$'x'", "a[$(touch PWN)]",
    "x\\", "'", '"', "|touch PWN", ">PWN", "EOF", "\nEOF\ntouch PWN", "$1", "%s%n", "\r", "\x1b[0m", "''", "]]", "1 -eq 1",
]  # fmt: skip

# template, what the program gets; {} is the value. Each is shell text as public projects write it, or worse.
TEMPLATES = [
    ("S {a}", ["{}"]),
    ('S "{a}"', ["{}"]),
    ("S '{a}'", ["{}"]),
    ("S x{a}y", ["x{}y"]),
    ("S --opt={a}", ["--opt={}"]),
    ('S "models:/m/{a}"', ["models:/m/{}"]),
    ('S "m/{a}/n" && true', ["m/{}/n"]),
    ("S 'm/{a}/n' | cat", ["m/{}/n"]),
    ("VAR=1 S {a}", ["{}"]),
    ("VAR={a} bash -c 'env printf \"%s\\0\" \"$VAR\"'", ["{}"]),
    ("true; S {a}", ["{}"]),
    ("cd .; S {a} 2>&1", ["{}"]),
    ("true; S $'q{a}w'", ["q{}w"]),
    ("true; S $'\\x41{a}\\''", ["A{}'"]),
    ('true; S $"q{a}w"', ["q{}w"]),
    ('f() {{ S {a} "$1"; }}; f z', ["{}", "z"]),
    ("set -- q; S {a} $1", ["{}", "q"]),
    ('S {a} "$#"', ["{}", "0"]),
    ("true && S \"$(printf '%s.' {a})\"", ["{}."]),
    ("true && S \"$(printf '%s.' \"{a}\")\"", ["{}."]),
    ("true && S \"`printf '%s.' {a}`\"", ["{}."]),
    ("true && S \"`printf '%s.' \"{a}\"`\"", ["{}."]),
    ("true && S \"$( (printf '%s.' '{a}') )\"", ["{}."]),
    ("true && S \"$(case x in x) printf '%s.' {a};; esac)\"", ["{}."]),
    ('S "${{NOPE:-{a}}}"', ["{}"]),
    ("S ${{NOPE:-{a}}}", ["{}"]),
    ("# don't {a}\nS {a}", ["{}"]),
    ("S {a} # it's {a}", ["{}"]),
    ("S \\\n  {a} \\\n  end \\\n", ["{}", "end"]),
    ('if true; then S "{a}" \'x\'; fi', ["{}", "x"]),
    ("case x in x) S {a};; esac", ["{}"]),
    ('for i in {a}; do S "$i"; done', ["{}"]),
    ('A={a} ; S "$A"', ["{}"]),
    ('export A={a} && S "$A"', ["{}"]),
    ('arr=({a} b); S "${{arr[@]}}"', ["{}", "b"]),
    ("[[ {a} == {a} ]] && S {a}", ["{}"]),
    ('S "\\{a}"', ["\\{}"]),
    ("S \\{a}", ["{}"]),
    ('S "\\\\{a}"', ["\\{}"]),
    ("S '\\{a}'", ["\\{}"]),
    ('S "\\"{a}\\"" ;', ['"{}"']),
    ('S "\\${a}" ;', ["${}"]),
    ("cat <<<{a} >/dev/null; S {a}", ["{}"]),
    ('S "$(cat <<EOF\n{a}.\nEOF\n)"', ["{}."]),
    ("S \"$(cat <<'EOF'\n$x `y` \\z {a}.\nEOF\n)\"", ["$x `y` \\z {}."]),
    ('S "$(cat <<-EOF | cat\n\t{a}.\n\tEOF\n)"', ["{}."]),
    ("bash -c \"env printf '%s\\\\0' {a}\"", ["{}"]),
    ("bash -o pipefail -c \"true | env printf '%s\\\\0' {a}\"", ["{}"]),
    ("env A=1 sh -c 'env printf \"%s\\0\" '{a}", ["{}"]),
    ("eval \"env printf '%s\\\\0' {a}\"", ["{}"]),
    ("bash -c 'env printf \"%s\\0\" \"$1\"' name {a}", ["{}"]),
    ("bash script.sh -c {a}", ["-c", "{}"]),
    ("S {a}{a} \"{a}'{a}\"", ["{}{}", "{}'{}"]),
    ("S {{{a}}} ;", ["{{}}"]),
    ("S '{{x}}' {a} {{x,y}}", ["{x}", "{}", "x", "y"]),
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("commands")
    (path / "script.sh").write_text(f'{SHOW} "$@"\n')
    return path


def arguments(argv, folder):
    done = subprocess.run(argv, cwd=folder, capture_output=True, check=False, stdin=subprocess.DEVNULL)
    assert not (folder / "PWN").exists(), argv
    assert done.returncode == 0, (argv, done.stderr)
    return [os.fsdecode(part) for part in done.stdout.split(b"\0")[:-1]]


def expected(shapes, value):
    return [re.sub(r"\{\}", lambda _: value, shape) for shape in shapes]


def compiled(template, value, extras=None):
    return build(template.replace("S ", f"{SHOW} "), {"a": value}, extras or {})[0]


@pytest.mark.parametrize(("template", "shapes"), TEMPLATES, ids=[case[0] for case in TEMPLATES])
def test_every_hostile_value_arrives_byte_for_byte(template, shapes, folder):
    for value in HOSTILE:
        assert arguments(compiled(template, value), folder) == expected(shapes, value), value


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    template=st.sampled_from(TEMPLATES),
    value=st.one_of(
        st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12),
        st.text(st.sampled_from(list("$(){}[]<>|&;`'\"\\ \n#*?!~=-+%@1a")), max_size=10),
    ),
)
def test_any_value_in_any_template_arrives_byte_for_byte(template, value, folder):
    text, shapes = template
    assert arguments(compiled(text, value), folder) == expected(shapes, value)


_fragments = st.lists(
    st.sampled_from(
        ["{a}", "{a}", "'", '"', "\\", "$(", ")", "`", " ", "x", "(", "\n", "<<E", "E", "#", "${{", "}}", ";", "|", "$'", "[[ ", " ]]",
         " -eq ", "((", "))", "$((", " let ", " eval ", 'bash -c "', "bash -c '", "v[", "]", "=", " -v ", "case ", " in ", "<<'E'",
         " unset ", " declare -i ", " for ", " do ", "&&"]
    ),
    max_size=9,
)  # fmt: skip
_VALUES = [
    "$(touch PWN)",
    "`touch PWN`",
    "x;touch PWN",
    "'$(touch PWN)'",
    '"`touch PWN`"',
    "v[$(touch PWN)]",
    "\nE\ntouch PWN",
]


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(fragments=_fragments, value=st.sampled_from(_VALUES))
def test_no_template_however_broken_runs_a_value(fragments, value, folder):
    try:
        argv = compiled("".join(fragments), value)
    except TemplateError:
        return
    with suppress(FileNotFoundError):  # run without a shell: there is no program of that name
        subprocess.run(argv, cwd=folder, capture_output=True, check=False, stdin=subprocess.DEVNULL, timeout=20)
    assert not (folder / "PWN").exists(), argv


def test_a_command_without_shell_syntax_needs_no_shell():
    assert build("python train.py --x {a} 'b c' \"d{a}\"", {"a": "1 2"}, {})[0] == (
        "python", "train.py", "--x", "1 2", "b c", "d1 2",
    )  # fmt: skip


@pytest.mark.parametrize(
    "template",
    [
        "a && b",
        "a | b",
        "X=1 a",
        "a > f",
        "a $X",
        "a `b`",
        "a *",
        "a ~/x",
        "cd x",
        "a; b",
        "./run",
        "a\nb",
        "a {{1,2}}",
        'a "$X"',
    ],
)
def test_shell_syntax_gets_a_shell(template):
    assert build(template, {}, {})[0][:2] == ("bash", "-c")


def test_undeclared_parameters_are_appended(folder):
    extras = {"key": "a b", "empty": "", "k $(touch PWN)": "$(touch PWN)"}
    tail = ["--key", "a b", "--empty", "", "--k $(touch PWN)", "$(touch PWN)"]
    for template in ("S {a}", "true && S {a}", "true && S {a} \\\n", "true | S {a}\n\n"):
        assert arguments(compiled(template, "v", extras), folder) == ["v", *tail]


@pytest.mark.parametrize("template", ["true && S {a} # end", "true; cat <<E\n{a}\nE\n"])
def test_undeclared_parameters_need_a_place(template):
    with pytest.raises(TemplateError, match="no place to append --key"):
        compiled(template, "v", {"key": "1"})


def test_many_parameters_keep_apart(folder):
    values = {f"p{n}": f"v{n} " for n in range(1, 15)}
    template = f"true && {SHOW} " + " ".join(f"{{{name}}}" for name in values)
    assert arguments(build(template, values, {})[0], folder) == list(values.values())


def test_names_with_hyphens_blanks_and_dots_work(folder):
    values = {"batch-size": "3", "my param": "x y", "model.lr": "0.1"}
    assert build("p {batch-size} {my param} {model.lr} {batch-size:s} {batch-size!s}", values, {})[0] == (
        "p", "3", "x y", "0.1", "3", "3",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("template", "word", "hint"),
    [
        ("p {b}", "not a declared", "did you mean"),
        ("p {alpho}", "not a declared", "`{alpha}`"),
        ("p {zzz}", "not a declared", "declared: `a`, `alpha`"),
        ("p {a:.2f}", "read as a parameter", "double them"),
        ("p {}", "read as a parameter", "double them"),
        ("p ${HOME}", "read as a parameter", "`${{HOME}}`"),
        ("p ${a}", "two things", "`${{a}}`"),
        ("awk '{print $1}'", "read as a parameter", "`{{print $1}}`"),
        ("p {a", "never closed", "twice"),
        ("p a}", "single `}`", "twice"),
        ("p 'x", "never closes", "closing"),
        ('p "x', "never closes", "closing"),
        ("p $(x", "never closes", "closing"),
        ("p `x", "never closes", "closing"),
        ("cat <<EOF\nx", "never closed", "only EOF"),
    ],
)
def test_a_broken_template_is_explained(template, word, hint):
    with pytest.raises(TemplateError) as caught:
        build(template, {"a": "1", "alpha": "2"}, {})
    assert word in caught.value.message
    if template != "p {b}":
        assert hint in caught.value.hint


@pytest.mark.parametrize(
    "template",
    ["echo $(( {a} + 1 ))", "(( {a} > 1 )) ; x", "[[ {a} -eq 3 ]]", "[[ -n x && 3 -lt {a} ]]", "let x={a}",
     "for ((i=0; i<{a}; i++)); do x; done", "if (( {a} )); then x; fi", 'echo "${{v[{a}]}}"', "echo ${{v:{a}}}",
     "declare -i x={a}", "v[{a}]=1; x", '[[ "{a} 1" -eq 3 ]]', "echo $[ {a} ]"],
)  # fmt: skip
def test_what_bash_calculates_with_must_be_a_number(template, folder):
    build(template, {"a": "3"}, {})
    for value in ("x[$(touch PWN)]", "PATH", ""):
        with pytest.raises(TemplateError, match="not a number"):
            build(template, {"a": value}, {})


@pytest.mark.parametrize(
    "template",
    ["bash -c 'echo \"{a}\"'", 'bash -c "echo \'{a}\'"', "bash -c \"bash -c 'x {a}'\"", 'eval "x \'{a}\'"', "unset {a} ; x",
     "[[ -v {a} ]]", "read {a} ; x", "trap 'x \"{a}\"' EXIT", "ssh host 'x \"{a}\"'", "su me -c 'x \"{a}\"'"],
)  # fmt: skip
def test_a_value_that_a_shell_inside_would_read_must_be_plain(template):
    build(template, {"a": "data/x-1.csv"}, {})
    for value in ("$(touch PWN)", "a b", "x[1]", "';x"):
        with pytest.raises(TemplateError, match="another shell"):
            build(template, {"a": value}, {})


def test_nested_too_deep_is_an_error():
    with pytest.raises(TemplateError, match="deeper"):
        build("$(" * 500 + ")" * 500, {}, {})


def test_an_argument_that_no_program_takes_is_an_error():
    assert len(build("p {a}", {"a": "x" * MAX_ARGUMENT}, {})[0][1]) == MAX_ARGUMENT
    for template in ("p {a}", "p {a} | cat", "p x{a}"):
        with pytest.raises(TemplateError, match="bytes"):
            build(template, {"a": "é" * MAX_ARGUMENT}, {})


def test_bytes_that_are_no_text_pass_through(folder):
    value = os.fsdecode(b"caf\xe9 $(touch PWN)")
    assert arguments(compiled("true && S {a}", value), folder) == [value]


@pytest.mark.parametrize("template", ["S {a}", "S 'x{a}' | cat", 'S "x{a}" && true', "true; S {a}", "S $'{a}' ;"])
def test_the_text_for_people_does_the_same_when_typed(template, folder):
    for value in HOSTILE:
        argv, text = build(template.replace("S ", f"{SHOW} "), {"a": value}, {"k": value})
        if "cat" in template or "true" in template[2:] or template.endswith(";"):
            argv, text = build(template.replace("S ", f"{SHOW} "), {"a": value}, {})
        assert arguments(["bash", "-c", text], folder) == arguments(argv, folder)
