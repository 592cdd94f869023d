"""Where shards lie: a folder, or an address that webdataset can open, kept in a cache of bounded size."""

from __future__ import annotations

import hashlib
import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from streamer.errors import MissingDependency, RecordingError

_BLOCK = 1 << 20


class Store:
    """A folder of files, local or remote.

    Parameters
    ----------
    place : str or Path
        A folder; or an address to which a file's name is added: ``https://…``, ``gs://…``, ``s3://…``
        (through the command ``aws``), or ``pipe:COMMAND … {}`` with the name in the braces' place.
    cache : Path, optional
        Where remote files are kept; ``$XDG_CACHE_HOME/bcistream/shards`` by default.
    cache_gb : float
        The oldest used are removed beyond so much.
    """

    def __init__(self, place: str | Path, *, cache: Path | None = None, cache_gb: float = 100.0) -> None:
        self.place = str(place)
        self.is_remote = isinstance(place, str) and ("://" in place or place.startswith("pipe:"))
        self._cache = (cache or _default_cache()) / hashlib.sha256(self.place.encode()).hexdigest()[:16]
        self._cache_bytes = cache_gb * 1e9

    def where(self, name: str) -> str:
        """Return a file's address, for messages and for opening."""
        if not self.is_remote:
            return str(Path(self.place) / name)
        if "{}" in self.place:
            return self.place.replace("{}", name)
        return f"{self.place.rstrip('/')}/{name}"

    def read(self, name: str) -> bytes:
        """Return a small file's content, never from the cache.

        Raises
        ------
        RecordingError
            It is not there.
        """
        if self.is_remote:
            with self._opened(name) as stream:
                content: bytes = stream.read()
            return content
        try:
            return (Path(self.place) / name).read_bytes()
        except OSError as error:
            raise RecordingError(
                f"{self.where(name)} cannot be read ({error.strerror}): expected a folder that "
                "`bcitrain data prepare` finished."
            ) from error

    def file(self, name: str, size: int) -> Path:
        """Return a shard as a local file of that size.

        Raises
        ------
        RecordingError
            It is not there, or has another size.
        """
        if self.is_remote:
            return self._fetched(name, size)
        path = Path(self.place) / name
        self._check(name, path.stat().st_size if path.is_file() else None, size)
        return path

    def _check(self, name: str, found: int | None, size: int) -> None:
        if found == size:
            return
        what = "is missing" if found is None else f"has {found} bytes"
        raise RecordingError(
            f"Shard {self.where(name)} {what}, its index says {size}: run `bcitrain data prepare` again "
            "(only what is damaged is done again), or copy the shard again."
        )

    def _fetched(self, name: str, size: int) -> Path:
        path = self._cache / name
        if path.is_file() and path.stat().st_size == size:
            os.utime(path)  # used now
            return path
        self._cache.mkdir(parents=True, exist_ok=True)
        self._make_room(size)
        handle, partial = tempfile.mkstemp(dir=self._cache, prefix=".")
        try:
            with os.fdopen(handle, "wb") as target, self._opened(name) as stream:
                while block := stream.read(_BLOCK):
                    target.write(block)
            self._check(name, Path(partial).stat().st_size, size)
            os.replace(partial, path)  # whole, or not there: other processes may look
        except BaseException:
            Path(partial).unlink(missing_ok=True)
            raise
        return path

    def _opened(self, name: str) -> Any:
        try:
            from webdataset.gopen import gopen
        except ImportError as error:
            raise MissingDependency(
                f"{self.where(name)} is opened by webdataset, not installed here: "
                "pip install 'bcistream[offline]'"
            ) from error
        address = self.where(name)
        try:
            opened = gopen(f"pipe:aws s3 cp {address} -" if address.startswith("s3://") else address)
        except (OSError, ValueError) as error:
            raise RecordingError(f"{address} cannot be opened: {error}.") from error
        return _Stream(address, opened)

    def _make_room(self, size: int) -> None:
        """Remove the files that were not used for longest; one that is open stays readable."""
        files = [(path.stat(), path) for path in self._cache.glob("*.tar")]
        total = size + sum(stat.st_size for stat, _ in files)
        for stat, path in sorted(files, key=lambda item: item[0].st_mtime):
            if total <= self._cache_bytes:
                return
            with suppress(FileNotFoundError):  # another process was first
                path.unlink()
            total -= stat.st_size


class _Stream:
    """A stream of webdataset's, its failures ours: a command that fails says so when it is read or closed."""

    def __init__(self, address: str, stream: Any) -> None:
        self._address, self._stream = address, stream

    def __enter__(self) -> _Stream:
        return self

    def __exit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        try:
            self._stream.close()
        except OSError as error:
            if kind is None:
                raise self._failure(error) from error

    def read(self, size: int = -1) -> bytes:
        try:
            content: bytes = self._stream.read(size) if size > 0 else self._stream.read()
        except OSError as error:
            raise self._failure(error) from error
        return content

    def _failure(self, error: OSError) -> RecordingError:
        return RecordingError(f"{self._address} cannot be read: {error}.")


def _default_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "bcistream" / "shards"
