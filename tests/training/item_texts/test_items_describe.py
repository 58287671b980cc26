"""`rankloom items describe`: short, clean texts with provenance, by whomever they were written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from rankloom._cli.main import main
from rankloom_features.catalogue import Catalogue, Item
from rankloom_training.data import load_dataset
from rankloom_training.item_texts.from_catalogue import CatalogueWriter
from rankloom_training.item_texts.from_chat import MAX_REPAIRS, ChatWriter
from rankloom_training.item_texts.item_text import clean_keywords
from rankloom_training.item_texts.item_text_file import FILE_NAME, read_item_texts
from rankloom_training.teachers.chat import Completion
from training.small_log import folder_of
from training.teachers.chat_server import Messages, ServerReply, says, serving
from training.teachers.scripted_chat import WRITTEN, ScriptedChat

ITEMS = (
    Item("a", "Glass Comet", 1994, ("Heist", "Sci-Fi"), "A crew steals a comet. " + "Long. " * 40),
    Item("b", "Paper River", 2001, ("Romance",), "Two strangers meet by the river."),
    Item("c", "Velvet", None, (), ""),
)
GOOD = "Keywords: river, meeting, strangers\nDescription: A gentle romance with a slow start."
Describe = Callable[..., tuple[int, str]]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return folder_of(tmp_path)


@pytest.fixture
def describe(data: Path, capsys: pytest.CaptureFixture[str]) -> Describe:
    def run_command(*options: object) -> tuple[int, str]:
        code = main(["items", "describe", "--data", str(data), *map(str, options)])
        out, err = capsys.readouterr()
        return code, out + err

    return run_command


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rankloom_training.teachers.endpoint.MAX_WAIT_S", 0.001)


def test_keywords_are_clean_and_few() -> None:
    given = [
        "'Space'",
        "19th",
        "ab",
        "space",
        "new\\nline",
        " a  long one ",
        *map(chr, range(97, 99)),
    ]
    assert clean_keywords(given) == ("Space", "a long one")
    assert len(clean_keywords(f"word{'x' * at}" for at in range(30))) == 10


def test_the_catalogue_gives_labels_terms_and_whole_sentences() -> None:
    writer = CatalogueWriter(ITEMS)
    first, second, third = map(writer.describe, ITEMS)
    assert first.keywords[:2] == ("Heist", "Sci-Fi")
    assert {"crew", "comet", "steals"} <= set(first.keywords)
    assert first.description.startswith("A crew steals a comet. Long.")
    assert len(first.description.split()) <= 25
    assert second.description == "Two strangers meet by the river."
    assert (third.keywords, third.description) == ((), "")
    assert {text.teacher for text in (first, second, third)} == {"catalogue"}


def test_items_without_any_description_get_their_labels() -> None:
    bare = Item("a", "Glass Comet", 1994, ("Heist", "Sci-Fi"))
    text = CatalogueWriter([bare]).describe(bare)
    assert (text.keywords, text.description) == (("Heist", "Sci-Fi"), "Heist and Sci-Fi of 1994")


def test_a_models_text_is_taken_with_its_name() -> None:
    chat = ScriptedChat(lambda _: GOOD)
    text = ChatWriter(chat, Catalogue(ITEMS)).describe(ITEMS[1])
    assert text.keywords == ("river", "meeting", "strangers")
    assert text.description == "A gentle romance with a slow start."
    assert (text.teacher, len(text.prompt_digest)) == ("scripted", 64)


WRONG = {
    "another form": "It is a nice film.",
    "too long": "Keywords: river\nDescription: " + "so " * 26,
    "another title": "Keywords: river\nDescription: Much like Glass Comet.",
    "a label it lacks": "Keywords: Heist\nDescription: A gentle romance.",
    "more lines": GOOD + "\nNote: I hope this helps.",
}


@pytest.mark.parametrize("answer", WRONG.values(), ids=WRONG.keys())
def test_a_wrong_answer_is_asked_for_again_and_then_written_from_the_catalogue(
    answer: str,
) -> None:
    chat = ScriptedChat(lambda _: answer)
    text = ChatWriter(chat, Catalogue(ITEMS)).describe(ITEMS[1])
    assert len(chat.asked) == 1 + MAX_REPAIRS
    assert text.teacher == "catalogue"
    assert text.description == ITEMS[1].description


def test_an_answer_that_was_cut_is_not_kept() -> None:
    chat = ScriptedChat(lambda _: Completion(GOOD, True, 9, WRITTEN))
    text = ChatWriter(chat, Catalogue(ITEMS)).describe(ITEMS[1])
    assert (len(chat.asked), text.teacher) == (1 + MAX_REPAIRS, "catalogue")


def test_the_command_writes_a_text_of_every_item_and_keeps_its_time(
    describe: Describe, data: Path
) -> None:
    code, printed = describe()
    assert (code, printed.splitlines()[0]) == (0, f"{data / FILE_NAME}: 5 of 5 items")
    first = read_item_texts(data / FILE_NAME)
    assert list(first) == [f"i{index}" for index in range(5)]
    describe()
    assert read_item_texts(data / FILE_NAME) == first


@pytest.mark.usefixtures("patient")
def test_a_dead_endpoint_loses_no_finished_item(describe: Describe, data: Path) -> None:
    def dying(_: Messages, number: int) -> ServerReply:
        return says(GOOD) if number < 3 else ServerReply(b"", 503)

    asking = ("--model", "large", "--concurrency", 1, "--teacher")
    with serving(dying) as server:
        code, printed = describe(*asking, server.url)
    assert code == 1
    assert "status 503, 6 times; see to the server" in printed
    finished = read_item_texts(data / FILE_NAME)
    assert list(finished) == ["i0", "i1", "i2"]
    with serving(lambda *_: says(GOOD)) as server:
        assert describe(*asking, server.url)[0] == 0
        assert len(server.calls) == 2
    texts = read_item_texts(data / FILE_NAME)
    assert {name: texts[name] for name in finished} == finished
    assert {text.teacher for text in texts.values()} == {"large"}


def test_another_file_is_not_replaced(describe: Describe, data: Path) -> None:
    (data / FILE_NAME).write_text("years of work")
    code, printed = describe()
    assert code == 2
    assert "is not a file of item texts; move it away" in printed
    assert (data / FILE_NAME).read_text() == "years of work"


def test_item_texts_do_not_change_how_the_data_is_read(describe: Describe, data: Path) -> None:
    before = load_dataset(data).files
    describe()
    assert load_dataset(data).files == before
