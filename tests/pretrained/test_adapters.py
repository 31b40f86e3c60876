"""Adapters of PEFT: written, read, merged, and, heavy, against peft itself."""

import json

import equinox as eqx
import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import ide_transformer as ide
from ide_transformer.equation import LowRank, map_parts, parts, with_low_rank
from tests.golden.cases import CASES
from tests.helpers import GOLDEN, drawn, largest


TOKENS = np.array([[1, 5, 2, 9, 0, 7]])
# The targets of each family, and what PEFT calls them. GPT-2 and GPT-NeoX store queries, keys
# and values in one matrix.
TARGETS = {
    "gpt2": ("query value outer", ["c_attn", "mlp.c_proj"]),
    "llama": ("query gate outer", ["down_proj", "gate_proj", "q_proj"]),
    "gpt_neox": ("key output", ["dense", "query_key_value"]),
    "albert": ("query", ["query"]),
    "t5": ("query value", ["q", "v"]),
}
outputs = eqx.filter_jit(lambda model: model(TOKENS))


def adapted(family):
    """A golden checkpoint with changes of its maps."""
    targets, _ = TARGETS[family]
    model = ide.load_pretrained(GOLDEN / family)
    model = with_low_rank(model, 3, 7.0, targets.split(), key=jax.random.key(0))

    def with_up(part, place):
        up = drawn(part.up.shape, place, 0.2).astype("float32")
        return eqx.tree_at(lambda x: x.up, part, up)

    return map_parts(model, LowRank, with_up)


def written(family, folder, **changes):
    """An adapter of this package, with other options."""
    ide.save_pretrained(adapted(family), folder, like=GOLDEN / family, adapter=True)
    options = json.loads((folder / "adapter_config.json").read_text()) | changes
    (folder / "adapter_config.json").write_text(json.dumps(options))
    return folder, options


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_an_adapter_comes_back_and_can_be_merged(family, tmp_path):
    model = adapted(family)
    expected = outputs(model)
    _, options = written(family, tmp_path / "adapter")
    assert options["target_modules"] == TARGETS[family][1]
    assert options["base_model_name_or_path"] == str(GOLDEN / family)
    assert options["fan_in_fan_out"] == (family == "gpt2")
    back = ide.load_pretrained(tmp_path / "adapter")
    assert largest(outputs(back), expected) < 1e-5
    ide.save_pretrained(back, tmp_path / "merged", like=tmp_path / "adapter")
    merged = ide.load_pretrained(tmp_path / "merged")
    assert largest(outputs(merged), expected) < 1e-5
    native = ide.load_pretrained(GOLDEN / family)
    assert jax.tree.structure(merged) == jax.tree.structure(native)
    # A layer without a change, as other programs write it.
    file = tmp_path / "adapter/adapter_model.safetensors"
    tensors = {name: x for name, x in load_file(file).items() if ".1." not in name}
    save_file(tensors, file)
    changes = parts(ide.load_pretrained(tmp_path / "adapter"), LowRank)
    assert not any(np.any(x.up[1]) for x in changes) and any(np.any(x.up[0]) for x in changes)


def test_what_an_adapter_cannot_say_is_refused(tmp_path):
    model = adapted("llama")
    trained = eqx.tree_at(lambda x: x.inputs.embedding, model, replace_fn=lambda x: x + 1)
    like = GOLDEN / "llama"
    for wrong, like_folder, message in [
        (model, None, "like="),
        (trained, like, r"embed_tokens\.weight"),
        (model.with_solver(ide.Strang()), like, "solver: Strang"),
        (ide.load_pretrained(like), like, "no low-rank changes"),
    ]:
        with pytest.raises(ide.InputError, match=message):
            ide.save_pretrained(wrong, tmp_path / "new", like=like_folder, adapter=True)
    assert not (tmp_path / "new").exists()
    for options, message in [
        ({"use_dora": True}, "use_dora = True"),
        ({"peft_type": "IA3"}, "peft_type = 'IA3'"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"alpha_pattern": {"q.*": 2}}, "alpha_pattern"),
        ({"base_model_name_or_path": str(GOLDEN / "gpt2")}, "q_proj"),
    ]:
        folder, _ = written("llama", tmp_path / message, **options)
        with pytest.raises(ide.InputError, match=message):
            ide.load_pretrained(folder)


@pytest.mark.heavy
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("family", TARGETS)
def test_peft_reads_and_writes_the_same_adapters(family, tmp_path):
    peft = pytest.importorskip("peft", reason="peft is in the extra reference")
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.set_num_threads(1)
    torch.manual_seed(0)

    def base():
        kind = getattr(transformers, CASES[family].model)
        return kind.from_pretrained(GOLDEN / family, dtype=torch.float32)

    def theirs(model):
        with torch.no_grad():
            result = model.eval()(torch.tensor(TOKENS), output_hidden_states=True)
        # This package gives states for these.
        has_states = family in ("albert", "t5")
        return (result.hidden_states[-1] if has_states else result.logits).numpy()

    plain = theirs(base())
    folder, options = written(family, tmp_path / "here")
    their_outputs = theirs(peft.PeftModel.from_pretrained(base(), folder))
    assert largest(their_outputs, outputs(adapted(family))) < 1e-5
    assert largest(their_outputs, plain) > 0.01
    # Back, with ranks and factors that differ by layer, and a layer without a change.
    lora_options = {name: options[name] for name in ("target_modules", "fan_in_fan_out")}
    if family != "albert":
        first, layer = lora_options["target_modules"][0], {"layers_to_transform": [1]}
        lora_options |= {"rank_pattern": {first: 5}, "alpha_pattern": {first: 3}, **layer}
    lora_options |= {"r": 4, "lora_alpha": 7, "use_rslora": True, "init_lora_weights": False}
    model = peft.get_peft_model(base(), peft.LoraConfig(**lora_options))
    model.save_pretrained(tmp_path / "there")
    their_outputs = theirs(model)
    assert largest(their_outputs, outputs(ide.load_pretrained(tmp_path / "there"))) < 1e-5
    assert largest(their_outputs, plain) > 0.01
