"""Options of reading a file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mtl_edge.errors import OptionError

__all__ = ["ReadOptions"]

SEPARATORS = {"tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";", "pipe": "|", "space": " "}


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How to read a file of texts, alike in every command.

    Attributes:
        text_column: the column that holds the texts.
        format: one of `mtl_edge.io.source.FORMATS`; default: by the ending of the file's name.
        encoding: of text files; default: UTF-8, or what a byte order mark says.
        separator: of CSV and TSV, one character or its name, as `tab`; default: by the format.
        quoting: of CSV and TSV: `double`, after RFC 4180; or `none`, quotes are characters like
            others. Not given: double, but quotes that seem to be stray are refused.
        escape: of CSV and TSV, takes the meaning from a quote, a separator or a line end behind it.
        missing: what a null in place of a text is: an error, a row to pass over, an empty text.
        too_long: what a text beyond the classifier's limit is: an error, a row to pass over, or
            cut.

    Raises:
        OptionError: one of them makes no sense.
    """

    text_column: str = "text"
    format: str | None = None
    encoding: str | None = None
    separator: str | None = None
    quoting: Literal["double", "none"] | None = None
    escape: str | None = None
    missing: Literal["error", "skip", "empty"] = "error"
    too_long: Literal["error", "skip", "cut"] = "error"

    def __post_init__(self) -> None:
        separator = SEPARATORS.get(self.separator or "", self.separator)
        object.__setattr__(self, "separator", separator)
        for name, value in (("separator", separator), ("escape", self.escape)):
            if value is not None and (len(value) != 1 or value in '"\r\n\0'):
                raise OptionError(
                    f"--{name} is {value!r}, expected one character, no quote and no line end"
                )
        if separator is not None and separator == self.escape:
            raise OptionError(f"--separator and --escape are both {separator!r}; choose two")
        try:
            "a,\n".encode(self.encoding or "utf-8")
        except (LookupError, UnicodeError, ValueError) as error:
            raise OptionError(
                f"--encoding {self.encoding!r}: {error}; expected utf-8, utf-16, cp1252, ..."
            ) from None
