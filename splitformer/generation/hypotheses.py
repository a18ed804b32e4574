"""What a beam search follows and what it has found, as plain data: no keys, no values.

Hypotheses share their beginnings, so their tokens form a tree: each node is a token and knows the
one before it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from splitformer.generation.options import GenerationOptions
from splitformer.generation.stops import Stops
from splitformer.generation.tokens import EndReason, Produced
from splitformer.model.stepping import rounded
from splitformer.model.tokenizer import Detokenizer


class Node:
    """A token of a hypothesis.

    Attributes:
        parent: The token before it; None: it is where the search began, and no token.
        id: Token id.
        log_probability: Natural logarithm of its probability under the model, before filters.
        depth: Tokens since the search began, this one included.
        far: A token further back, so that the way to any is short; the same in all that are as deep
            (Myers 1983). Where the search began, that itself.
    """

    __slots__ = ("depth", "far", "id", "log_probability", "parent")

    def __init__(self, parent: Node | None, token: int, log_probability: float) -> None:
        self.parent = parent
        self.id = token
        self.log_probability = log_probability
        self.depth: int = 0 if parent is None else parent.depth + 1
        self.far: Node = self if parent is None else parent
        if parent is not None:
            far = parent.far
            if parent.depth - far.depth == far.depth - far.far.depth:
                self.far = far.far

    def after(self, depth: int) -> list[Node]:
        """Return the tokens up to this one, without the first `depth`."""
        nodes, node = [], self
        while node.depth > depth:
            nodes.append(node)
            assert node.parent is not None
            node = node.parent
        return nodes[::-1]


def common(first: Node, second: Node) -> Node:
    """Return the last token that two hypotheses of one search have in common."""
    depth = min(first.depth, second.depth)
    one, other = _above(first, depth), _above(second, depth)
    while one is not other:
        far, farther = one.far, other.far
        if far is not farther:
            one, other = far, farther
        else:  # they part behind it
            assert one.parent is not None
            assert other.parent is not None
            one, other = one.parent, other.parent
    return one


def _above(node: Node, depth: int) -> Node:
    """Return the token of a hypothesis at a depth that is at most its own."""
    while node.depth > depth:
        assert node.parent is not None
        node = node.far if node.far.depth >= depth else node.parent
    return node


class Continuation(NamedTuple):
    """A hypothesis and one more token.

    Attributes:
        total: Sum of log-probabilities after filters.
        parent: The hypothesis.
        id: The token.
        log_probability: The token's own, before filters.
    """

    total: float
    parent: Node
    id: int
    log_probability: float

    def node(self) -> Node:
        """Return it as a hypothesis; its log-probability in the precision that all have."""
        return Node(self.parent, self.id, rounded(self.log_probability))


class Live(NamedTuple):
    """A hypothesis that goes on: its last token, and the sum of its log-probabilities."""

    node: Node
    total: float


@dataclass(frozen=True, slots=True, eq=False)
class Complete:
    """A hypothesis that has ended.

    Attributes:
        node: Its last token; the end token is none.
        score: Sum of its log-probabilities, divided by its length to the length penalty's power.
        reason: Why it has ended.
        end: Log-probability of the end token, before filters, if that is why.
    """

    node: Node
    score: float
    reason: EndReason
    end: float = 0.0


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """A complete candidate of a beam search, for its reader.

    Attributes:
        first: Index of its first token in the target: where the search began.
        tokens: Its tokens, the end token not among them.
        text: Their text, cut before a stop string.
        score: Sum of log-probabilities after filters, the end token's included, divided by the
            number of tokens (likewise) to the power of the length penalty.
        reason: Why it has ended.
    """

    first: int
    tokens: tuple[Produced, ...]
    text: str
    score: float
    reason: EndReason


@dataclass(frozen=True, slots=True)
class Hypotheses:
    """The candidates that a beam search has found, best first."""

    best_first: tuple[Hypothesis, ...]

    def __iter__(self) -> Iterator[Hypothesis]:
        return iter(self.best_first)

    def __len__(self) -> int:
        return len(self.best_first)


@dataclass(eq=False, slots=True)
class Search:
    """How far a beam search over a target has come.

    It is all that a search needs in order to go on where it was interrupted: keys and values can be
    computed again from the tokens.

    Attributes:
        asked: The options that decide what it finds.
        most: Length of the target at which hypotheses end.
        before: The target's tokens when it began.
        detokenizer: As it was then.
        live: Hypotheses that go on, likeliest first.
        complete: Hypotheses that have ended, best first.
        certain: The last token that was handed to the target.
        over: It has found what there is to find.
        notes: What is known of hypotheses that go on beside their tokens and sums.
    """

    asked: object
    most: int
    before: tuple[Produced, ...]
    detokenizer: Detokenizer
    live: list[Live]
    complete: list[Complete] = field(default_factory=list)
    certain: Node = field(init=False)
    over: bool = False
    notes: dict[Node, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.certain = self.live[0].node

    @property
    def origin(self) -> int:
        """Index of the first token that it looks for."""
        return len(self.before)

    def made(self, produced: Sequence[Produced]) -> bool:
        """True if a target holds what was certain, and nothing else."""
        certain = [node.id for node in self.certain.after(0)]
        return certain == [token.id for token in produced[self.origin :]]

    def found(self, options: GenerationOptions) -> Hypotheses:
        """Return the best hypotheses, as many as the options ask for."""
        best = self.complete[: options.num_return_sequences or 1]
        return Hypotheses(tuple(self._read(each, options.stop) for each in best))

    def _read(self, complete: Complete, stop: Sequence[str]) -> Hypothesis:
        detokenizer, stops = self.detokenizer.fork(), Stops(stop)
        tokens = [
            Produced(node.id, detokenizer.add(node.id), node.log_probability)
            for node in complete.node.after(0)
        ]
        stops.follow([*self.before, *tokens])
        tokens = [stops.cut(i, token) for i, token in enumerate(tokens, self.origin)]
        ending = detokenizer.finish() if complete.reason is EndReason.EOS else ""
        text = "".join(token.text for token in tokens) + ending
        return Hypothesis(self.origin, tuple(tokens), text, complete.score, complete.reason)
