"""Words to choose from in a stand-in's attributes and arguments."""

from typing import Any, Literal, get_args

ApiName = Literal["websets", "search"]
Cursors = Literal["honoured", "ignored", "missing", "looping", "expires"]
LastRuns = Literal["true", "null", "missing", "stuck", "other", "flapping"]
OnBusy = Literal["cancel", "refuse"]
Order = Literal["newest", "oldest", "shuffled"]

_CHOICES = {
    name: get_args(words)
    for name, words in {
        "api": ApiName,
        "cursors": Cursors,
        "last_run": LastRuns,
        "on_busy": OnBusy,
        "order": Order,
    }.items()
}


def check_choice(name: str, value: Any) -> None:
    """Raise if a name has choices and the value is none of them."""
    if name in _CHOICES and value not in _CHOICES[name]:
        raise ValueError(f"There is no {name}={value!r}; there are {', '.join(_CHOICES[name])}.")
