"""Models in the harness of EleutherAI, beside its own model of the same weights."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import tokenizers as tk
import yaml

import ide_transformer as ide
from ide_transformer.contrib.lm_eval import EvaluatedModel, evaluated
from tests.layered_models import CONTEXT, VOCABULARY, model_of, outputs


DIGITS = ide.tasks.CharacterTokenizer("0123456789a")


def model_of_digits():
    return EvaluatedModel(model_of("attention"), DIGITS, 10, 10, 4, 5, 0)


def test_likelihoods_are_those_of_the_logits_for_texts_of_all_lengths():
    """With more texts than a batch holds; of a long text the context is cut."""
    random = np.random.default_rng(0)
    texts = [random.integers(VOCABULARY, size=n).tolist() for n in (3, 8, 5, 9, 12)]
    requests = [(None, text[:-2], text[-2:]) for text in texts]
    found = model_of_digits()._loglikelihood_tokens(requests)
    for text, (likelihood, greedy) in zip(texts, found, strict=True):
        seen = np.array(text[-CONTEXT - 1 :])
        padded = np.zeros((1, CONTEXT), int)
        padded[0, : len(seen) - 1] = seen[:-1]
        logits = np.asarray(outputs(model_of("attention"), padded))[0, : len(seen) - 1]
        logs = logits - np.log(np.sum(np.exp(logits), axis=-1, keepdims=True))
        asked = [(n, seen[n + 1]) for n in (len(seen) - 3, len(seen) - 2)]
        assert likelihood == pytest.approx(sum(logs[x] for x in asked), rel=1e-9)
        assert greedy == all(logits[n].argmax() == token for n, token in asked)


def test_texts_end_at_the_first_stop():
    def written(prompt, **options):
        request = SimpleNamespace(args=(prompt, {"max_gen_toks": 5, **options}))
        return model_of_digits().generate_until([request])[0]

    whole = written("12")
    tokens = np.asarray(
        ide.generate(model_of("attention"), np.array([1, 2]), 5, temperature=0.0)
    )
    expected = DIGITS.decode(tokens[2:]).partition("a")[0]
    assert whole == expected and len(whole) > 1
    stop = whole[1]
    assert written("12", until=[stop, "no"]) == whole[: whole.index(stop)]
    # A prompt beyond the context loses its beginning.
    assert written("0000012") == written("012")


@pytest.mark.heavy
def test_the_harness_finds_the_same_as_with_its_own_model(tmp_path):
    why = "pip install 'ide_transformer[evaluation]' 'lm-eval[hf]'"
    lm_eval = pytest.importorskip("lm_eval", reason=why)
    Instance = pytest.importorskip("lm_eval.api.instance").Instance
    HFLM = pytest.importorskip("lm_eval.models.huggingface", reason=why).HFLM
    TaskManager = pytest.importorskip("lm_eval.tasks").TaskManager
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    end = "<|endoftext|>"
    letters = {chr(32 + i): i for i in range(95)} | {end: 95}
    tokenizer = tk.Tokenizer(tk.models.BPE(letters, []))
    tokenizer.add_special_tokens([end])
    tokenizer.decoder = tk.decoders.Fuse()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    config = GPT2Config(vocab_size=96, n_positions=32, n_embd=16, n_layer=2, n_head=2)
    config.initializer_range = 0.5
    theirs = GPT2LMHeadModel(config).eval()
    theirs.save_pretrained(tmp_path)
    fast = PreTrainedTokenizerFast(
        tokenizer_file=str(tmp_path / "tokenizer.json"), eos_token=end, bos_token=end
    )
    fast.pad_token = end
    loaded = ide.load_model(tmp_path)
    ours = evaluated(loaded.model, loaded.tokenizer, batch=3)
    other = HFLM(pretrained=theirs, tokenizer=fast, batch_size=3, device="cpu")

    def asked(kind, *arguments):
        return [Instance(kind, {}, x, n) for n, x in enumerate(arguments)]

    pairs = ("a b ", "cd"), ("", "hello"), ("long " * 9, "end"), ("x", " y z")
    found, expected = (x.loglikelihood(asked("loglikelihood", *pairs)) for x in (ours, other))
    np.testing.assert_allclose(*([y[0] for y in x] for x in (found, expected)), rtol=1e-4)
    assert [x[1] for x in found] == [x[1] for x in expected]
    texts = ("a text " * 12,), ("short",)
    found, expected = (
        x.loglikelihood_rolling(asked("loglikelihood_rolling", *texts)) for x in (ours, other)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    options = {"until": ["e", "q"], "max_gen_toks": 12, "do_sample": False}
    prompts = ("once ", options), ("upon a time there was a long text", options)
    found, expected = (
        x.generate_until(asked("generate_until", *prompts)) for x in (ours, other)
    )
    assert found == expected

    lines = [
        {"question": "a", "choices": ["b", "cd"], "answer": 0},
        {"question": "what ", "choices": ["is", "was"], "answer": 1},
    ]
    (tmp_path / "lines.json").write_text("\n".join(map(json.dumps, lines)))
    task = {
        "task": "local_choice",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(tmp_path / "lines.json")}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{question}}",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "{{answer}}",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    }
    (tmp_path / "local_choice.yaml").write_text(yaml.safe_dump(task))
    scores = []
    for model in (ours, other):
        manager = TaskManager(include_path=str(tmp_path), include_defaults=False)
        results = lm_eval.simple_evaluate(
            model, tasks=["local_choice"], task_manager=manager, bootstrap_iters=0
        )
        scores.append(results["results"]["local_choice"]["acc,none"])
    assert scores[0] == scores[1]
