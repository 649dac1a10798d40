"""What forward did to the module: copies into buffers, what it leaves behind, and refusals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stillframe.errors import NotSupported
from stillframe.export import effects, left_constants, leftovers
from stillframe.export.placeholders import Placeholders
from stillframe.export.rebinding import Rebinding
from stillframe.export.request import Original
from stillframe.export.state import Change, Watch
from stillframe.fake.tensor import FakeTensor
from stillframe.trace.recorder import Recorder


class StateChanges:
    """The changes of one run, judged when forward has returned.

    Args:
        original: the module and the example.
        recorder: has the graph; gets the copies.
        placeholders: the inputs of the graph.
        fakes: identity of each parameter and buffer -> what stood for it.
        notes: gets a sentence for each attribute that is left behind.

    Attributes:
        left: what forward left on the modules, which programs do not.
        made: the constants in it.
    """

    def __init__(
        self,
        original: Original,
        recorder: Recorder,
        placeholders: Placeholders,
        fakes: dict[int, FakeTensor],
        notes: list[str],
    ) -> None:
        self._original = original
        self._recorder = recorder
        self._placeholders = placeholders
        self._fakes = fakes
        self._notes = notes
        self.left: list[Change] = []
        self.made: list[left_constants.Kept] = []

    def judge(
        self,
        watch: Watch,
        inputs: list[Any],
        outputs: list[Any],
        trees: tuple[Any, ...],
        *,
        kept: Sequence[left_constants.Kept] = (),
        sees_identity: bool = False,
    ) -> None:
        """``self.buffer = new`` in forward becomes a copy into the buffer; the rest is refused.

        Args:
            watch: compares the modules with what they were.
            inputs: what stood for each input.
            outputs: the values that the program gives away.
            trees: the arguments and the result.
            kept: constants that the run found on the module, left there by another one.
            sees_identity: whether comparisons of inputs by ``is`` are seen in the run.

        Raises:
            SideEffectError: a change that no program makes.
            NotSupported: a copy would not do the same.
        """
        found = watch.changes(self._recorder.fake_mode.real_of)
        if found:
            known = [] if sees_identity else [*inputs, *outputs]
            elsewhere = self._elsewhere(watch, known, trees)
            changed = self._without_leftovers(found, elsewhere, kept)
            self.made = left_constants.find(self.left, outputs)
            self._note_leftovers()
            self._rebind_buffers(changed, inputs, outputs)
        self._refuse_moving_integers()

    def _elsewhere(
        self, watch: Watch, known: list[Any], trees: tuple[Any, ...]
    ) -> leftovers.Elsewhere:
        """What a later call may compare with a leftover by ``is``, where nobody sees it do so.

        Strict capture sees it where a tensor is an input, and refuses.
        """
        state = [*self._fakes.values(), *self._placeholders.constant_fakes.values()]
        tensors = [*state, *(v for v in known if isinstance(v, FakeTensor))]
        with self._recorder.recording():  # containers of the user's may run operators
            return leftovers.Elsewhere(tensors, trees, watch.is_old)

    def _without_leftovers(
        self,
        found: list[Change],
        elsewhere: leftovers.Elsewhere,
        kept: Sequence[left_constants.Kept],
    ) -> list[Change]:
        """The other changes; those that are left behind are put down."""
        others = []
        for change in found:
            left = self._left_behind(change, elsewhere, kept)
            if left is None:
                others.append(change)
            else:
                self.left.append(left)
        return others

    def _left_behind(
        self,
        change: Change,
        elsewhere: leftovers.Elsewhere,
        kept: Sequence[left_constants.Kept],
    ) -> Change | None:
        """A change as one of what is left behind, or None if it is another."""
        if kept:
            real = self._recorder.fake_mode.real_of(change.value)
            again = left_constants.as_made(change, real, kept)
            if again is not None:
                return again
        return change if leftovers.is_left_behind(change, elsewhere) else None

    def _note_leftovers(self) -> None:
        constants = {id(kept.made) for kept in self.made}
        for change in self.left:
            about = left_constants if id(change.value) in constants else leftovers
            self._notes.append(about.note(change))

    def _rebind_buffers(self, changed: list[Change], inputs: list[Any], outputs: list[Any]) -> None:
        changes = effects.refuse_changes(changed)
        if not changes:
            return
        original, constants = self._original, self._placeholders.constants
        rebinding = Rebinding(original.modules, original.state, self._fakes, constants, changes)
        rebinding.check(zip(original.paths, inputs, strict=True), outputs)
        with self._recorder.recording():
            rebinding.record()

    def _refuse_moving_integers(self) -> None:
        """A program that checks an integer of its state must not change it.

        Raises:
            NotSupported: names the buffer or the constant.
        """
        buffers = self._original.buffers.items()
        held = {fqn: self._fakes[id(real)] for fqn, real in buffers}
        for fqn, fake in (held | self._placeholders.constant_fakes).items():
            if id(fake) in self._recorder.checked_values and fake.storage_.written:
                raise NotSupported(
                    f"Python reads the integer in self.{fqn}, and forward changes it.",
                    why="the program holds for one value, and its first call would leave another",
                    hints=["keep the decision in tensors: torch.where, or torch.cond"],
                )
