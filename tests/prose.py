"""Rules that generated sentences keep: short, few numbers, no riddles."""

from __future__ import annotations

import re
from collections.abc import Iterable

WORDS, NUMBERS = 25, 2
#: Figures of speech that a reader has to solve, and what has a plainer name.
RIDDLES = ("told apart", "mends", "what fails it", "elsewhere", "+g", "a coin", "parts them", "stands in for a coin")

_END = re.compile(r"(?<=[.?!])\s+(?=[A-Z`0-9“])")
#: What holds digits and is no number to remember: names, labels of metrics, p and the level that it is held against,
#: which seeds, what intervals cover, files and papers.
_NAMES = re.compile(
    r"`[^`]*`|× 1000|n = [\d,]+|top-\d|L2|p [<=] [\d.]+|\bp below [\d.]+|seeds?:? \d[\d, ]*\d|seed \d+|95 %|docs/\S+"
    r"|arXiv [\d.]+|float32"
)
#: An interval is one number.
_NUMBER = re.compile(r"-?\d[\d,.]*(?: to -?\d[\d,.]*)?")


def sentences(text: str) -> list[str]:
    """The sentences of a text."""
    return [sentence for line in text.splitlines() for sentence in _END.split(line.strip()) if sentence]


def words(sentence: str) -> int:
    """What has a letter or a digit between blanks; a name in backticks is one."""
    return sum(any(c.isalnum() for c in word) for word in re.sub(r"`[^`]*`", "name", sentence).split())


def numbers(sentence: str) -> list[str]:
    """The numbers that a reader has to hold in mind."""
    return _NUMBER.findall(_NAMES.sub("", sentence))


def faults(texts: Iterable[str]) -> list[str]:
    """What breaks the rules, a line each."""
    found = []
    for sentence in {sentence for text in texts for sentence in sentences(text)}:
        if words(sentence) > WORDS:
            found.append(f"{words(sentence)} words: {sentence}")
        if len(numbers(sentence)) > NUMBERS:
            found.append(f"{len(numbers(sentence))} numbers: {sentence}")
        found += [f"riddle {riddle!r}: {sentence}" for riddle in RIDDLES if riddle in sentence.lower()]
    return found
