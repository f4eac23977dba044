"""Options as dataclass fields that carry their meaning and their rule; the command line is made from them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

from jaxcnnbp.errors import InputError

__all__ = ["AT_LEAST_ONE", "COUNT", "FRACTION", "NOT_NEGATIVE", "POSITIVE", "SEED", "Rule", "check_fields", "option"]


@dataclasses.dataclass(frozen=True)
class Rule:
    """What a value must fulfil, and the words for it."""

    holds: Callable[[Any], bool]
    words: str


AT_LEAST_ONE = Rule(lambda value: isinstance(value, int) and value >= 1, "must be a whole number, at least 1")
COUNT = Rule(lambda value: isinstance(value, int) and value >= 0, "must be 0 or a whole number above it")
POSITIVE = Rule(lambda value: 0 < value < math.inf, "must be a positive number")
NOT_NEGATIVE = Rule(lambda value: 0 <= value < math.inf, "must be 0 or a positive number")
FRACTION = Rule(lambda value: 0 <= value < 1, "must lie in 0 <= value < 1")
SEED = Rule(lambda value: isinstance(value, int) and 0 <= value < 2**32, "must be a whole number, 0 .. 2**32 - 1")


def option(default: Any, text: str, rule: Rule | None = None, choices: tuple[str, ...] = ()) -> Any:
    """A dataclass field of an option.

    Args:
        default: its value where nothing is said.
        text: one sentence for the command line.
        rule: what its value must fulfil.
        choices: the only values it may have; empty for any.

    Returns:
        The field.
    """
    return dataclasses.field(default=default, metadata={"help": text, "rule": rule, "choices": choices})


def check_fields(options: Any) -> None:
    """Check every field of a dataclass against its rule and its choices.

    Args:
        options: an instance whose fields `option` made.

    Raises:
        InputError: a value outside its range or choices, named in one sentence.
    """
    for field in dataclasses.fields(options):
        _check(field, getattr(options, field.name))


def _check(field: dataclasses.Field, value: Any) -> None:
    choices, rule = field.metadata["choices"], field.metadata["rule"]
    if value is None and field.default is None:
        return
    if choices and value not in choices:
        raise InputError(f"`{field.name}` (={value}) must be one of {', '.join(choices)}.")
    if rule is not None and not rule.holds(value):
        raise InputError(f"`{field.name}` (={value}) {rule.words}.")
