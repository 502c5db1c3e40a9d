"""What a terminal or a window shows and what may be kept: text that comes from files and addresses, and sizes."""

import re
import unicodedata

# Letters, marks, numbers, signs and plain spaces are shown; controls, line ends, marks of direction (with which a name
# can pretend to be another) and halves of characters, as of names that are not UTF-8, are written out.
WRITTEN_OUT = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
# Of an address: what stands before the host (RFC 3986, 3.2.1), and the query, in which signed addresses have their key.
WHO = re.compile(r"(?<=://)[^/?#\s'\"]*@")
QUERY = re.compile(r"(://[^?#\s'\"]*\?)[^#\s'\"]+")
JOINERS = "\u200c\u200d"  # between letters of several scripts, and in emoji: they change no order

BYTES = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")  # powers of 1024, as memory is counted


def byte_size(count: float) -> str:
    """Return a number of bytes in the unit that suits it: ``1.5 GiB``.

    >>> byte_size(3 * 2**29)
    '1.5 GiB'
    """
    unit = 0
    while count >= 1024 and unit < len(BYTES) - 1:
        count, unit = count / 1024, unit + 1
    return f"{count:.3g} {BYTES[unit]}"


def escaped(text: object) -> str:
    r"""Return a text with all that a terminal would obey, or could not show, written out; no password of an address.

    >>> escaped("cells\x1b[31m\n")
    'cells\\x1b[31m\\n'
    """
    return "".join(
        c.encode("unicode_escape", "backslashreplace").decode("ascii")
        if unicodedata.category(c) in WRITTEN_OUT and c not in JOINERS
        else c
        for c in without_secrets(str(text))
    )


def without_secrets(text: str) -> str:
    """Return a text with user, password and query taken out of each address in it; what is not an address stays.

    >>> without_secrets("https://me:secret@host/a.zarr?key=abc cannot be reached")
    'https://host/a.zarr?... cannot be reached'
    """
    return QUERY.sub(r"\1...", WHO.sub("", text)) if "://" in text else text
