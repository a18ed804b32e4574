"""The sequential loop: what to compute next and which token to take; knows nothing of gRPC."""

from splitformer.generation.decoding import Decoding, News, Request, Vocabulary
from splitformer.generation.drafting import Drafting
from splitformer.generation.glossary import Glossary
from splitformer.generation.hypotheses import Hypotheses, Hypothesis, Search
from splitformer.generation.inspection import kept_bytes, most_bytes
from splitformer.generation.loop import Failures, run, step
from splitformer.generation.options import DecodingMode, DraftMode, GenerationOptions
from splitformer.generation.row_cost import RowCosts, row_costs_of
from splitformer.generation.scoring import Scoring
from splitformer.generation.sequential import Sequential
from splitformer.generation.speech import SpeechRules, likeliest_of
from splitformer.generation.stops import Stops
from splitformer.generation.target import Target
from splitformer.generation.tokens import Alternative, Details, EndReason, Produced
from splitformer.generation.ways import decoding_for, draft_mode_of, drafts_of

__all__ = [
    "Alternative",
    "Decoding",
    "DecodingMode",
    "Details",
    "DraftMode",
    "Drafting",
    "EndReason",
    "Failures",
    "GenerationOptions",
    "Glossary",
    "Hypotheses",
    "Hypothesis",
    "News",
    "Produced",
    "Request",
    "RowCosts",
    "Scoring",
    "Search",
    "Sequential",
    "SpeechRules",
    "Stops",
    "Target",
    "Vocabulary",
    "decoding_for",
    "draft_mode_of",
    "drafts_of",
    "kept_bytes",
    "likeliest_of",
    "most_bytes",
    "row_costs_of",
    "run",
    "step",
]
