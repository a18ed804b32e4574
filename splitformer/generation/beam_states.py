"""Keys and values of the beams of a search, which take over each other's as the search goes on."""

from __future__ import annotations

from collections.abc import Sequence

from splitformer.generation.hypotheses import Node, common
from splitformer.generation.target import Target
from splitformer.model.cache import DecoderState


class BeamStates:
    """The states of the hypotheses that a search follows.

    Args:
        target: What it goes on with; its own state stays where the search began.
        origin: Tokens that had been produced then.
    """

    def __init__(self, target: Target, origin: int) -> None:
        self._target = target
        self._prompt = len(target.start) + origin  # positions before the search began
        self._states: dict[Node, DecoderState] = {}

    def inputs(self, node: Node) -> tuple[Sequence[int], DecoderState]:
        """Return what of a beam has not been through the decoder yet, and its state."""
        if not node.depth:
            return self._target.pending, self._target.state
        state = self._of(node)
        known = state.length - self._prompt
        if known == node.depth - 1:  # most often
            return (node.id,), state
        return [each.id for each in node.after(known)], state

    def move(self, children: Sequence[tuple[Node, Node]]) -> None:
        """Give every new beam the state of the one that it continues.

        The first child of a beam takes it over; a further one takes the state of a beam that has no
        child, and copies what is different.

        Args:
            children: The beams to come, each with the one that it continues.
        """
        parents = {parent for _, parent in children}
        unused = [node for node in self._states if node not in parents]
        states: dict[Node, DecoderState] = {}
        taken: set[Node] = set()
        for child, parent in children:
            if parent.depth and parent not in taken:
                taken.add(parent)
                states[child] = self._states[parent]
            else:
                states[child] = self._copy(parent, unused)
        self._states = states

    def _of(self, node: Node) -> DecoderState:
        """The state of a beam; made anew if the search was interrupted."""
        if not node.depth:
            return self._target.state
        if node not in self._states:
            self._states[node] = self._target.state.fork()
        return self._states[node]

    def _copy(self, node: Node, unused: list[Node]) -> DecoderState:
        original = self._of(node)
        if not unused:
            return original.fork()
        same, closest = max((common(node, other).depth, i) for i, other in enumerate(unused))
        state = self._states[unused.pop(closest)]
        state.adopt(original, self._prompt + same)
        return state
