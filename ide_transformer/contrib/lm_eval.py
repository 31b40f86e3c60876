"""Evaluates language models by lm-eval, the harness of EleutherAI."""

import importlib
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike

from ide_transformer.errors import InputError
from ide_transformer.models import Model, Text, check_causal, generate, size_of
from ide_transformer.packages import require
from ide_transformer.tasks import AbstractTokenizer


def evaluated(
    model: Model,
    tokenizer: AbstractTokenizer,
    *,
    end: int | None = None,
    begin: int | None = None,
    batch: int = 8,
    most_generated: int = 256,
    seed: int = 0,
) -> Any:
    """A language model as an `lm_eval.api.model.LM`.

        loaded = ide.load_model("glassllm")
        lm = evaluated(loaded.model, loaded.tokenizer, end=0)
        lm_eval.simple_evaluate(lm, tasks=["lambada_openai"])

    Log-likelihoods come from one solve for each text, padded to a power of two; generation uses
    the `CachedDecoder`, see `generate`. Texts are encoded without marks of the beginning and
    the end, and the earliest tokens of a text beyond the context are left out.

    **Arguments:**

    - `end`: the token that ends a text. Default: the tokenizer's.
    - `begin`: the token before a text without a context. Default: `end`.
    - `batch`: texts in one call of the model.
    - `most_generated`: tokens to generate where a task does not say.
    - `seed`: of tasks that draw their tokens.

    **Raises:** `InputError` without lm-eval, for models that see later tokens, and without a
    token that ends a text.
    """
    require("lm_eval", "evaluation", "tasks of the harness need")
    check_causal("evaluated", model)
    if end is None:
        tokenizer, end = tokenizer.ending()
    base = importlib.import_module("lm_eval.api.model").TemplateLM
    kind = type("HarnessModel", (EvaluatedModel, base), {})
    begin = end if begin is None else begin
    return kind(model, tokenizer, end, begin, batch, most_generated, seed)


class EvaluatedModel:
    """The methods that lm-eval calls; its class does the rest."""

    def __init__(
        self,
        model: Model,
        tokenizer: AbstractTokenizer,
        end: int,
        begin: int,
        batch: int,
        most_generated: int,
        seed: int,
    ):
        super().__init__()
        self.model = model
        self.text_tokenizer = tokenizer
        self.end = end
        self.begin = begin
        self.batch = batch
        self.most_generated = most_generated
        self.key = jax.random.key(seed)

    @property
    def eot_token_id(self) -> int:
        return self.end

    @property
    def prefix_token_id(self) -> int:
        return self.begin

    @property
    def max_length(self) -> int:
        return self.model.inputs.context

    def tok_encode(self, string: str, add_special_tokens: Any = None, **_: Any) -> list[int]:
        return self.text_tokenizer.encode(string).tolist()

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[Any, list[int], list[int]]], **_: Any
    ) -> list[tuple[float, bool]]:
        """For each context and continuation the log-likelihood of the continuation, and
        whether it is the most likely one."""
        found: list[tuple[float, bool]] = [(0.0, True)] * len(requests)
        texts = [[*before, *after][-self.max_length - 1 :] for _, before, after in requests]
        # Texts of a similar length share a program.
        order = sorted(range(len(texts)), key=lambda n: len(texts[n]))
        for start in range(0, len(order), self.batch):
            chosen = order[start : start + self.batch]
            size = min(size_of(len(texts[chosen[-1]]) - 1, 64, 2), self.max_length)
            tokens = np.zeros((self.batch, size + 1), int)
            for row, n in enumerate(chosen):
                tokens[row, : len(texts[n])] = texts[n]
            logs, greedy = map(np.asarray, _scores(self.model, tokens))
            for row, n in enumerate(chosen):
                last = len(texts[n]) - 1
                asked = slice(max(last - len(requests[n][2]), 0), last)
                likelihood = logs[row, asked].sum(dtype=float)
                found[n] = float(likelihood), bool(greedy[row, asked].all())
        return found

    def loglikelihood_rolling(self, requests: Sequence[Any], **_: Any) -> list[float]:
        """The log-likelihood of whole texts, each token once, in windows of the context."""
        utils = importlib.import_module("lm_eval.utils")
        windows = []
        owners = []
        for number, request in enumerate(requests):
            pairs = utils.get_rolling_token_windows(
                token_list=self.tok_encode(request.args[0]),
                prefix_token=self.begin,
                max_seq_len=self.max_length,
                context_len=1,
            )
            for pair in map(utils.make_disjoint_window, pairs):
                windows.append((None, *pair))
                owners.append(number)
        totals = np.zeros(len(requests))
        for number, found in zip(owners, self._loglikelihood_tokens(windows), strict=True):
            totals[number] += found[0]
        return totals.tolist()

    def generate_until(self, requests: Sequence[Any], **_: Any) -> list[str]:
        """What follows each prompt, up to the first of its stop texts."""
        written = [""] * len(requests)
        groups: dict[str, list[int]] = {}
        for number, request in enumerate(requests):
            groups.setdefault(repr(request.args[1]), []).append(number)
        for group in groups.values():
            for start in range(0, len(group), self.batch):
                chosen = group[start : start + self.batch]
                prompts = [requests[n].args[0] for n in chosen]
                texts = self._written(prompts, dict(requests[chosen[0]].args[1]))
                for n, text in zip(chosen, texts, strict=True):
                    written[n] = text
        return written

    def _written(self, prompts: list[str], options: dict[str, Any]) -> list[str]:
        length = int(options.get("max_gen_toks", self.most_generated))
        if length >= self.max_length:
            raise InputError(
                f"generate_until: max_gen_toks={length}: the context of the model is "
                f"{self.max_length}."
            )
        stops = options.get("until") or []
        stops = [stops] if isinstance(stops, str) else list(stops)
        encoded = [self.tok_encode(x)[length - self.max_length :] for x in prompts]
        encoded = [x or [self.begin] for x in encoded]
        lengths = np.array([len(x) for x in encoded])
        mask = np.arange(lengths.max()) < lengths[:, None]
        tokens = np.zeros(mask.shape, int)
        tokens[mask] = np.concatenate(encoded)
        draws = options.get("do_sample", False)
        temperature = float(options.get("temperature") or 1.0) if draws else 0.0
        self.key, key = jax.random.split(self.key)
        drawn = generate(
            self.model,
            Text(tokens, mask),
            length,
            key=key,
            temperature=temperature,
            end=self.end,
        )
        texts = []
        for row, number in zip(np.asarray(drawn.tokens), lengths, strict=True):
            behind = row[number : number + length]
            ended = np.cumsum(behind == self.end).astype(bool)
            text = self.text_tokenizer.decode(behind[~ended])
            places = [place for stop in stops if stop and (place := text.find(stop)) >= 0]
            texts.append(text[: min(places, default=len(text))])
        return texts


@eqx.filter_jit
def _scores(model: Model, tokens: ArrayLike) -> tuple[Array, Array]:
    """For each token but the first its log-likelihood after those before it, and whether it is
    the most likely."""
    tokens = jnp.asarray(tokens)
    logits = model(tokens[:, :-1])
    targets = tokens[:, 1:, None]
    logs = jnp.take_along_axis(jax.nn.log_softmax(logits), targets, axis=-1)[..., 0]
    return logs, jnp.argmax(logits, axis=-1) == targets[..., 0]
