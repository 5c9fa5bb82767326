"""What is said of a rollout: sentences with room for values, which each face words in the language of its reader.

A verdict and a gate keep the sentence's name and its values, and so does the store; English is made when somebody reads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from string import Formatter
from typing import Any

Said = Mapping[str, Any]  # the sentence's name as "say", and its values; one of them may be said too

SENTENCES = {
    # a gate
    "own-errors": "{own} of {all} first errors are its own (p = {p:.2g})",
    "no-request": "no request yet",
    "no-answer": "no answer yet",
    "few-answers": "fewer than {least} answers",
    "latencies": "{ours:.3g} ms against {theirs:.3g} ms (p = {p:.2g})",
    "latency": "{value:.3g} ms",
    "share": "{value:.4g} ({low:.4g} to {high:.4g})",
    "difference": "{value:+.4g} ({low:+.4g} to {high:+.4g})",
    "beyond": "{detail}, beyond the limit",
    "too-little": "too little of {metric} yet",
    # INVALID
    "sample-ratio": "units do not come in the shares of the weights (p = {p:.2g})",
    "crossover": "{crossed} of {units} units were answered by two arms",
    "lost": "{lost} of {answered} answers are not in the store",
    "missing-outcomes": "units with {metric} do not come in the shares of the weights (p = {p:.2g})",
    # ROLLBACK
    "dead": "the process of {candidate} is dead",
    "broken": "{candidate}: {detail}",
    "timeout": "no decision in the time allowed: {why}",
    # PROMOTE
    "step": "the step's time and units are there and no gate objects",
    "harmless": "nothing speaks against it",
    "settled": "{metric} {value:+.4g} ({low:+.4g} to {high:+.4g})",
    "handed-over": "{candidate} answers everything",
    "alias-kept": "{alias} was moved to version {version} meanwhile, which was not compared with: it stays there",
    # the weights of a bandit
    "rewards": "rewards of {units} units",
    # HOLD
    "lasts": "the step lasts {left:duration} more",
    "units": "{have} of {least} units of this step",
    "rows": "{have} of {least} rows of this step",
    "waits": "{candidate}: {gate}: {detail}",
    "min-duration": "{left:duration} more",
    "min-units": "{have} of {least} units in each arm",
    "open": "{candidate}: {gate} is open: {detail}",
    "unsettled": "{metric} does not settle it yet",
}


def say(name: str, **values: Any) -> Said:
    return {"say": name, **values}


def worded(said: Said, language: Callable[[str], str] = str) -> str:
    """The sentence with its values; ``language`` gives the other language's sentence for the English one.

    "" for what no version of ours has said.
    """
    sentence = SENTENCES.get(said.get("say", ""))
    if sentence is None:
        return ""
    values = {key: worded(value, language) if isinstance(value, Mapping) else value for key, value in said.items()}
    try:
        return _FORMATTER.vformat(language(sentence), (), values)
    except (KeyError, ValueError, TypeError):
        return ""


class _Formatter(Formatter):
    """Knows durations, in seconds."""

    def format_field(self, value: Any, format_spec: str) -> str:
        if format_spec != "duration":
            return str(super().format_field(value, format_spec))
        unit, sign = next(((unit, sign) for unit, sign in _UNITS if value >= 2 * unit), (1, "s"))
        return f"{value / unit:.0f} {sign}" if unit == 1 else f"{value / unit:.3g} {sign}"


_UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"))
_FORMATTER = _Formatter()
