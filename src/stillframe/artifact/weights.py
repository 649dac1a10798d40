"""State of a loaded program: tensors that are verified when they are first looked at."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any


class LazyWeights(Mapping[str, Any]):
    """Tensors by FQN, mapped from a file whose digests have not been checked yet.

    Names are known at once. The first look at a tensor verifies the whole file; so does
    :meth:`verify_weights`.

    Args:
        tensors: by FQN.
        verify: raises :class:`~stillframe.errors.ArtifactError` if the file was altered; cheap when
            it has succeeded before.
    """

    def __init__(self, tensors: dict[str, Any], verify: Callable[[], None]) -> None:
        self._tensors = tensors
        self._verify = verify
        self._verified = False

    def verify_weights(self) -> None:
        """Check every byte against its digest, once.

        Raises:
            ArtifactError: the file was altered.
        """
        if not self._verified:
            self._verify()
            self._verified = True

    def __getitem__(self, fqn: str) -> Any:
        tensor = self._tensors[fqn]
        self.verify_weights()
        return tensor

    def __contains__(self, fqn: object) -> bool:
        return fqn in self._tensors

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def __repr__(self) -> str:
        state = "verified" if self._verified else "not verified yet"
        return f"<{len(self)} tensors mapped from a file, {state}>"
