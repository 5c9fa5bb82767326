"""Draw docs/terminal.svg: real commands in a real terminal, as they look at 100 columns. `python docs/picture.py`.

The commands are typed into a pseudo terminal in a fresh folder, so the picture cannot show what the tool does not do.
"""

from __future__ import annotations

import fcntl
import os
import pty
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import termios
from pathlib import Path

from rich.console import Console
from rich.text import Text

REPO = Path(__file__).resolve().parents[1]
COLUMNS = 100
COMMANDS = (
    "mlcli run wine -P learning_rate=0.05",
    "mlcli runs list",
    "mlcli runs show latest",
)


def typed(command: str, folder: str, env: dict[str, str]) -> str:
    """What a terminal shows after the command was typed."""
    parent, child = pty.openpty()
    fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", 40, COLUMNS, 0, 0))
    process = subprocess.Popen(command.split(), cwd=folder, env=env, stdin=child, stdout=child, stderr=child)
    os.close(child)
    output = b""
    while True:
        try:
            part = os.read(parent, 65536)
        except OSError:
            break
        if not part:
            break
        output += part
    process.wait()
    os.close(parent)
    lines = output.decode().replace("\r\n", "\n").split("\n")
    return "\n".join(re.sub(r"\x1b\[[0-9]*[A-KG]", "", line.rsplit("\r", 1)[-1]) for line in lines)


def main() -> None:
    programs = os.path.dirname(sys.executable)
    env = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "TERM": "xterm-256color", "LANG": "C.UTF-8"}
    for name in ("NO_COLOR", "COLUMNS", "MLCLI_TRACKING_URI", "PYTHONDONTWRITEBYTECODE"):
        env.pop(name, None)
    with tempfile.TemporaryDirectory(prefix="demo-") as top:
        folder = os.path.join(top, "demo")
        os.mkdir(folder)
        env |= {"USER": "ann", "LOGNAME": "ann", "MLCLI_ENV_ROOT": os.path.join(top, "envs")}
        shutil.copytree(REPO / "example_projects" / "wine", os.path.join(folder, "wine"))
        for value in ("learning_rate=0.01", "learning_rate=0.002"):  # a few runs to compare with
            subprocess.run(
                ["mlcli", "run", "-q", "wine", "-P", value], cwd=folder, env=env, check=True, capture_output=True
            )
        shown = Text()
        for command in COMMANDS:
            shown.append("$ ", "bold green").append(command + "\n", "bold")
            shown.append_text(Text.from_ansi(typed(command, folder, env).rstrip("\n").replace(top, "/home/ann")))
            shown.append("\n\n")
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        console = Console(record=True, width=COLUMNS, file=nowhere)
        console.print(shown, soft_wrap=False)
        picture = console.export_svg(title="mlcli")
    # The reader's own monospace font, rather than one fetched from somewhere.
    picture = re.sub(r"@font-face \{.*?\}\s*", "", picture, flags=re.DOTALL).replace("Fira Code", "monospace")
    (REPO / "docs" / "terminal.svg").write_text(picture, encoding="utf-8")


if __name__ == "__main__":
    main()
