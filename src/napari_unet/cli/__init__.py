"""The shell: the same verbs as the library, its settings as options, its errors as one line."""

import os

from ..process.memory import keep_freed, patient
from . import doing as doing  # both register their commands, in the order of the help
from . import looking as looking
from .shell import app as app
from .shell import run
from .watch import watched


def main() -> None:
    """Run the command line."""
    with watched():
        keep_freed()
        os.environ.update(patient())
        run()
