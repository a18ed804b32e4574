"""What a call asks for, read from the protocol: no field of it is left unread."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.descriptor import FieldDescriptor

from decoder_service.reading import options_of
from splitformer.errors import InvalidArgumentError
from splitformer.v1 import decoder_service_pb2 as pb

FIELDS = pb.GenerationOptions.DESCRIPTOR.fields


def some(field: FieldDescriptor) -> Any:
    """A value of the field's type that is not its default."""
    if field.name == "glossary":
        return [pb.GlossaryEntry(source="a", target="b")]
    if field.name == "logit_bias":
        return {5: 0.5}
    if field.name == "bad_words":
        return [pb.BadWord(text="a")]
    kinds = {FieldDescriptor.TYPE_STRING: "2", FieldDescriptor.TYPE_FLOAT: 0.5}
    plain: Any = kinds.get(field.type, 2)
    return [plain] if field.is_repeated else plain


def read(**asked: Any) -> Any:
    """What is made of it, or the fields that a refusal names: those have been read too."""
    try:
        return options_of(pb.GenerationOptions(**asked))
    except InvalidArgumentError as refusal:
        return {violation.field for violation in refusal.violations}


@pytest.mark.parametrize("field", list(FIELDS), ids=lambda field: field.name)
def test_every_field_makes_a_difference(field: FieldDescriptor) -> None:
    assert read(**{field.name: some(field)}) not in (read(), set())
