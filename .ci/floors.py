"""Print the lowest releases that pyproject.toml allows, as pins for pip: ``name==floor``, one a line.

Arguments name extras beside ``all``; ``--without NAME`` leaves one package out.
"""

import sys
import tomllib
from pathlib import Path


def main(*words: str) -> None:
    """Print the floors of the package, of the extra ``all``, and of the extras that are named."""
    left_out = {words[i + 1] for i, word in enumerate(words) if word == "--without"}
    extras = ["all", *(w for i, w in enumerate(words) if w != "--without" and words[i - 1 : i] != ("--without",))]
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *(r for e in extras for r in project["optional-dependencies"][e])]
    for requirement in wanted:
        name, _, floor = requirement.partition(">=")
        if name not in left_out:
            sys.stdout.write(f"{name}=={floor}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
