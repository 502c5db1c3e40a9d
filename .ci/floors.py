"""Print what pyproject.toml asks for, one requirement a line, for pip: ``floors.py lowest|newest [EXTRA ...]``.

``lowest`` pins each to its floor, ``newest`` leaves it open above. The extra ``all`` is among them unless ``--base`` is
given; ``--without NAME`` leaves one package out.
"""

import argparse
import sys
import tomllib
from pathlib import Path

PROJECT = Path(__file__).parents[1] / "pyproject.toml"


def main() -> None:
    """Print the requirements."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("which", choices=["lowest", "newest"])
    parser.add_argument("extras", nargs="*")
    parser.add_argument("--base", action="store_true")
    parser.add_argument("--without", action="append", default=[])
    given = parser.parse_intermixed_args()
    project = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]
    extras = given.extras if given.base else ["all", *given.extras]
    for requirement in [
        *project["dependencies"],
        *(r for extra in extras for r in project["optional-dependencies"][extra]),
    ]:
        if requirement.partition(">=")[0] not in given.without:
            sys.stdout.write(requirement.replace(">=", "==") if given.which == "lowest" else requirement)
            sys.stdout.write("\n")


if __name__ == "__main__":
    main()
