"""The error that a user can correct."""


class UserError(Exception):
    """A mistake that the user can correct. Its text is one line that names the problem and the solution."""

    status = 2  # exit status of the script that ends with this error


def in_short(error: BaseException) -> str:
    """The type of an error and the beginning of its text, on one line.

    The `repr` of an error can contain the whole file that could not be read.
    """
    text = str(error)
    return f"{type(error).__name__}({text if len(text) <= 100 else f'{text[:99]}…'!r})"
