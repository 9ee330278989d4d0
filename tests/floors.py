"""The lowest versions that setup.cfg allows, printed as constraints for pip; `make test-floors`."""

import configparser
import re
from pathlib import Path


def lowest_versions(path: Path) -> dict[str, str]:
    """Name -> version of each requirement `name>=version` in the setup.cfg at `path`."""
    setup = configparser.ConfigParser()
    setup.read(path)
    requirements = setup["options"]["install_requires"].splitlines()
    for extra in setup["options.extras_require"].values():
        requirements += extra.splitlines()
    # A requirement with an extra, such as gymnasium[mujoco], repeats one without it.
    found = (re.fullmatch(r"([\w.-]+)>=([\w.]+)", line.strip()) for line in requirements)
    return {match[1]: match[2] for match in found if match}


if __name__ == "__main__":
    for name, version in lowest_versions(Path(__file__).parents[1] / "setup.cfg").items():
        print(f"{name}=={version}")
