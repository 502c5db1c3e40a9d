"""Text that comes from files, as a terminal or a window may show it."""

import unicodedata

# Letters, marks, numbers, signs and plain spaces are shown; controls, line ends, marks of direction (with which a name
# can pretend to be another) and halves of characters, as of names that are not UTF-8, are written out.
WRITTEN_OUT = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
JOINERS = "\u200c\u200d"  # between letters of several scripts, and in emoji: they change no order


def escaped(text: object) -> str:
    r"""Return a text with all that a terminal would obey, or could not show, written out: ``\x1b``, ``\n``.

    >>> escaped("cells\x1b[31m\n")
    'cells\\x1b[31m\\n'
    """
    return "".join(
        c.encode("unicode_escape", "backslashreplace").decode("ascii")
        if unicodedata.category(c) in WRITTEN_OUT and c not in JOINERS
        else c
        for c in str(text)
    )
