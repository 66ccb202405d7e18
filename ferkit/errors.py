"""The error that a user can correct, and texts that are safe to print."""

import re


class UserError(Exception):
    """A mistake that the user can correct. Its text is one line that names the problem and the solution."""

    status = 2  # exit status of the script that ends with this error


def in_short(error: BaseException) -> str:
    """The type of an error and the beginning of its text, on one line.

    The `repr` of an error can contain the whole file that could not be read.
    """
    text = str(error)
    return f"{type(error).__name__}({text if len(text) <= 100 else f'{text[:99]}…'!r})"


def one_line(text: str) -> str:
    r"""`text` with line breaks and all that a terminal would not show escaped, like `\n` and `\x1b`."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def without_credentials(text: str) -> str:
    """`text` without what looks like a user name and a password, or like the options behind the `?` of an address.

    A password may contain an `@` or a `/`, so all from the scheme to the last `@` is left out. A time, as in the name
    `12:30@party.jpg`, is no password.
    """
    text = re.sub(r"(:/+)\S*@", r"\1", text)
    text = re.sub(r"(?!\d+:\d+@)[^\s'\"=:/]+:[^\s:/\\'\"][^\s'\"]*@", "…@", text)
    return re.sub(r"(:/+[^\s'\"?]+\?)[^\s'\"]+", r"\1…", text)
