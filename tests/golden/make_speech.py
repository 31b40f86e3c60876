"""The golden checkpoint of Whisper with random weights, and its outputs by transformers.

    python tests/golden/make_speech.py

writes tests/golden/whisper. It needs torch and transformers.
"""

from pathlib import Path

import numpy as np
import torch
import transformers


FOLDER = Path(__file__).parent / "whisper"
END = 1


def reference(
    seed: int, strength: float = 0.15, **options
) -> transformers.WhisperForConditionalGeneration:
    """A model in float64 all of whose parameters are random, the gains around one.

    **Arguments:**

    - `strength`: standard deviation of the parameters.
    """
    config = transformers.WhisperConfig(
        pad_token_id=0,
        bos_token_id=0,
        eos_token_id=END,
        decoder_start_token_id=2,
        begin_suppress_tokens=None,
        **options,
    )
    torch.manual_seed(seed)
    model = transformers.WhisperForConditionalGeneration(config).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            gain = parameter.ndim == 1 and parameter.mean() > 0.5
            random = strength * torch.randn_like(parameter) + float(gain)
            # Numbers of single precision, so that both precisions have the same weights.
            parameter.copy_(random.float())
    return model


def sample(model, seed: int, batch: int, tokens: int) -> tuple[np.ndarray, np.ndarray]:
    """Features `[batch, mels, frames]` and tokens `[batch, tokens]`."""
    config, random = model.config, np.random.default_rng(seed)
    frames = 2 * config.max_source_positions
    features = random.standard_normal((batch, config.num_mel_bins, frames))
    return features, random.integers(0, config.vocab_size, (batch, tokens))


@torch.no_grad()
def outputs(model, features: np.ndarray, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The states of the encoder and the logits."""
    out = model(
        input_features=torch.tensor(features, dtype=model.dtype),
        decoder_input_ids=torch.tensor(tokens),
    )
    return out.encoder_last_hidden_state.numpy(), out.logits.numpy()


def greedy(model, features: np.ndarray, prompt: np.ndarray, length: int) -> np.ndarray:
    """The most likely token after the other; a text that has ended goes on with its end."""
    tokens, ended = prompt, np.zeros(len(prompt), bool)
    for _ in range(length):
        best = outputs(model, features, tokens)[1][:, -1].argmax(-1)
        best = np.where(ended, END, best)
        tokens, ended = np.concatenate([tokens, best[:, None]], axis=1), ended | (best == END)
    return tokens


def main():
    model = reference(
        seed=24,
        strength=0.5,
        vocab_size=13,
        num_mel_bins=5,
        d_model=8,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=4,
        encoder_ffn_dim=12,
        decoder_ffn_dim=10,
        max_source_positions=6,
        max_target_positions=12,
    )
    features, tokens = sample(model, seed=1, batch=3, tokens=7)
    states, logits = outputs(model, features, tokens)
    written = greedy(model, features, tokens[:, :2], 8)
    model.float().save_pretrained(FOLDER)
    (FOLDER / "generation_config.json").unlink(missing_ok=True)
    np.savez_compressed(
        FOLDER / "outputs.npz",
        features=features,
        tokens=tokens,
        states=states,
        logits=logits,
        greedy=written,
        end=END,
    )


if __name__ == "__main__":
    main()
