"""Messages that name a setting in the words of the door they come through."""

from __future__ import annotations

import pickle

import pytest

from geoglnet.errors import OutputExistsError, SceneError
from geoglnet.message import Keyword, Message

EXISTS = "a --b.tif exists; pass " + Keyword("overwrite", True) + " to replace it"


def test_a_program_reads_a_keyword_argument() -> None:
    assert EXISTS == "a --b.tif exists; pass overwrite=True to replace it"
    assert str(SceneError("choose " + Keyword("bands"))) == "choose bands=…"
    assert "use " + Keyword("device", "cpu") == "use device='cpu'"


def test_another_door_spells_keywords_and_nothing_else() -> None:
    assert EXISTS.spelled(lambda keyword: f"<{keyword.name}>") == "a --b.tif exists; pass <overwrite> to replace it"


def test_messages_in_messages_keep_their_keywords() -> None:
    whole = Message("scene.tif: ", EXISTS) + "; or " + Keyword("bands") + "."
    assert [part for part in whole.parts if isinstance(part, Keyword)] == [Keyword("overwrite", True), Keyword("bands")]
    assert whole == f"scene.tif: {EXISTS}; or bands=…."


def test_errors_of_another_process_keep_their_keywords() -> None:
    with pytest.raises(OutputExistsError) as caught:
        raise pickle.loads(pickle.dumps(OutputExistsError(EXISTS)))
    assert caught.value.args[0].parts == EXISTS.parts
