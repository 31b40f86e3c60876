"""Options of a checkpoint, from `config.json`."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..errors import InputError


_REQUIRED = object()

# Options that do not change what a model of any family computes.
_HARMLESS = """
_attn_implementation _commit_hash _name_or_path _num_labels architectures auto_map
bad_words_ids begin_suppress_tokens bos_token_id chunk_size_feed_forward decoder_start_token_id
diversity_penalty do_sample dtype early_stopping encoder_no_repeat_ngram_size eos_token_id
eos_token_ids exponential_decay_length_penalty finetuning_task forced_bos_token_id
forced_eos_token_id gradient_checkpointing id2label initializer_factor initializer_range
is_encoder_decoder label2id length_penalty max_length min_length model_type
no_repeat_ngram_size num_beam_groups num_beams num_labels num_return_sequences
output_attentions output_hidden_states output_past output_scores pad_token_id prefix
problem_type remove_invalid_values repetition_penalty return_dict return_dict_in_generate
sep_token_id suppress_tokens task_specific_params temperature tf_legacy_loss tokenizer_class
top_k top_p torch_dtype torchscript transformers.js_config transformers_version typical_p
use_bfloat16 use_cache xla_device
"""


@dataclass(frozen=True)
class Options:
    """Options of a checkpoint, each read by name.

    - `values`: the options in `file`.
    - `within`: the name of the option that contains `values`, followed by a dot.
    - `spellings`: maps names to names in the file, see `renamed`.
    - `names_read`: the names in the file of the options read so far.

    Methods that read an option **raise** `InputError` for an unsuitable value, and for a
    missing option without a default.
    """

    values: Mapping[str, Any]
    file: Path
    within: str = ""
    spellings: Mapping[str, str] = field(default_factory=dict)
    names_read: set[str] = field(default_factory=set)

    def renamed(self, **spellings: str) -> "Options":
        """The options by other names: after `renamed(hidden_size="dim")` the option
        `hidden_size` is `dim` in the file and in errors."""
        return replace(self, spellings=spellings)

    def get(self, name: str, default: Any = _REQUIRED) -> Any:
        name = self.spellings.get(name, name)
        self.names_read.add(name)
        if name in self.values:
            return self.values[name]
        if default is _REQUIRED:
            raise InputError(f"{self.file} has no {self.within}{name}, which this model needs.")
        return default

    def size(
        self, name: str, default: Any = _REQUIRED, *, least: int = 1, nullable: bool = False
    ) -> Any:
        """An integer option. It may be `null` if the default is `None` or if `nullable`."""
        value = self.get(name, default)
        if value is None and (default is None or nullable):
            return None
        if type(value) is int and value >= least:
            return value
        raise self.refused(name, value, f"not a whole number of at least {least}")

    def divided(self, name: str, by: str) -> int:
        """The quotient of two sizes."""
        size = self.size(name)
        divisor = self.size(by)
        if size % divisor:
            reason = f"not a multiple of {self.spelled(by)} = {divisor}"
            raise self.refused(name, size, reason)
        return size // divisor

    def number(self, name: str, default: Any = _REQUIRED) -> float:
        """An option that is a finite number above 0."""
        value = self.get(name, default)
        if type(value) in (int, float) and 0 < value < math.inf:
            return float(value)
        raise self.refused(name, value, "not a finite number above 0")

    def times(self, name: str, ratio: str, default: Any = _REQUIRED) -> int:
        """The product of a size and a number, rounded down."""
        product = self.size(name) * self.number(ratio, default)
        if product >= 1:
            return int(product)
        reason = f"too small: {self.spelled(name)} times it must be at least 1"
        raise self.refused(ratio, self.get(ratio, default), reason)

    def flag(self, name: str, default: bool) -> bool:
        value = self.get(name, default)
        if isinstance(value, bool):
            return value
        raise self.refused(name, value, "neither true nor false")

    def allow(self, name: str, *values: Any) -> Any:
        """An option that must be one of `values`; the first is its default."""
        value = self.get(name, values[0])
        if not any(value == x and type(value) is type(x) for x in values):
            supported = dict.fromkeys(repr(x) for x in values if x is not _REQUIRED)
            raise self.refused(name, value, f"not supported; use {', '.join(supported)}")
        return value

    def choose(self, name: str, choices: Mapping[str, Any], default: Any = _REQUIRED) -> Any:
        """The choice that an option names."""
        return choices[self.allow(name, default, *choices)]

    def check_all_read(self, harmless: str) -> None:
        """Raises `InputError` for options that were not read, since outputs could be wrong.
        `harmless`: more names to skip, separated by spaces."""
        skipped = self.names_read.union(_HARMLESS.split(), harmless.split())
        if unknown := sorted(self.values.keys() - skipped):
            entries = (f"{self.within}{name} = {self.values[name]!r}" for name in unknown)
            raise InputError(
                f"{self.file}: {', '.join(entries)}: not known. Remove options that do not "
                "change what the model computes."
            )

    def spelled(self, name: str) -> str:
        """The file's name of an option."""
        return self.within + self.spellings.get(name, name)

    def refused(self, name: str, value: Any, reason: str) -> InputError:
        """The error to raise if the value of an option is `reason`, such as "not a list"."""
        return InputError(f"{self.file}: {self.spelled(name)} = {value!r} is {reason}.")
