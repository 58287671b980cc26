"""A local causal LM as teacher, as transformers saves it: with and without a chat template."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from rankloom._cli.main import main
from rankloom_features.catalogue import Catalogue, Item
from rankloom_training.embedded import train_tokenizer
from rankloom_training.teachers.chat import PromptRefusedError, system, user
from rankloom_training.teachers.local import LocalChat
from rankloom_training.teachers.teacher import TeacherError
from rankloom_training.traces.trace_file import read_traces

TEXTS = "Yes or No, the person liked and disliked items so far, oldest first. " * 3
TEMPLATE = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}answer: "
CONTEXT = 4096
QUESTION = [system("Answer."), user("Will the person like it?")]


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    tokenizer = train_tokenizer(Catalogue([Item("texts", TEXTS)]))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=CONTEXT,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def test_an_answer_is_greedy_and_as_long_as_it_may_be(model_folder: Path) -> None:
    chat = LocalChat(str(model_folder))
    first, again = (chat.complete(QUESTION, 12) for _ in range(2))
    assert (first.text, first.truncated) == (again.text, True)
    assert first.num_tokens > 12


def test_a_chat_template_is_used(model_folder: Path) -> None:
    plain = LocalChat(str(model_folder))
    templated = LocalChat(str(model_folder))
    templated._tokenizer.chat_template = TEMPLATE
    assert templated.complete(QUESTION, 4).num_tokens != plain.complete(QUESTION, 4).num_tokens


def test_a_prompt_beyond_the_context_is_refused(model_folder: Path) -> None:
    with pytest.raises(PromptRefusedError):
        LocalChat(str(model_folder)).complete([user("liked it " * CONTEXT)], 4)


def test_a_name_without_a_model_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(TeacherError, match="no causal LM with safetensors weights"):
        LocalChat(str(tmp_path / "nothing"))


def test_an_untrained_model_gives_refused_traces_and_no_failure(
    model_folder: Path, small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rankloom_training.teachers.chat_teacher.ANSWER_TOKENS", (8,))
    out = tmp_path / "traces.parquet"
    words = ["traces", "make", "--data", small_data, "--out", out, "--rows", 3]
    assert main([*map(str, words), "--teacher", str(model_folder)]) == 0
    traces = read_traces(out)
    assert len(traces) == 3
    assert all(trace.problem for trace in traces)
    assert {trace.teacher for trace in traces} == {str(model_folder)}
