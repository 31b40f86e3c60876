"""Calls of the functions that build models. Pyright has to report each line that is marked as
wrong, and no other."""

from jaxtyping import PRNGKeyArray

import ide_transformer as ide
from ide_transformer.contrib import MomentumLanguageModel
from ide_transformer.models import MeanHead, Model, TextInputs, TokenLogits


free = ide.Free()
image = (8, 8, 1)
scheme = ide.Strang()
units = ((0.0, 1.0),)


def call_right(theta: ide.AbstractControl, key: PRNGKeyArray) -> Model[TextInputs, TokenLogits]:
    ide.LanguageModel(3, 8, features=4, control=theta, constraint=free, key=key, tied=False)
    ide.SequenceClassifier(3, 8, 2, 4, control=theta, constraint=theta, key=key, dropout=0.1)
    ide.SequenceRegressor(3, 8, 4, control=theta, constraint=free, key=key, numbers=None)
    ide.ImageClassifier(image, 4, 3, 4, control=theta, constraint=free, key=key, std=1)
    ide.ImageStage(image, 4, control=theta, constraint=free, key=key, window=3, classes=2)
    ide.OperatorModel((8, 8), 4, control=theta, constraint=free, key=key, duration=0.5)
    ide.FunctionClassifier(8, 3, 4, control=theta, constraint=free, key=key, grid="midpoint")
    ide.FunctionRegressor(8, 4, control=theta, constraint=free, key=key, statistics=units)
    MomentumLanguageModel(3, 8, 4, control=theta, constraint=free, key=key, solver=scheme)
    return ide.LanguageModel(3, 8, 4, control=theta, constraint=free, key=key)


def call_wrong(theta: ide.AbstractControl, key: PRNGKeyArray) -> Model[TextInputs, MeanHead]:
    ide.LanguageModel(vocabulry=3, control=theta, constraint=free, key=key)  # wrong
    ide.SequenceClassifier(3, 8, 2, 4, control=theta, constraint=free)  # wrong
    ide.SequenceRegressor("3", 8, 4, control=theta, constraint=free, key=key)  # wrong
    ide.ImageClassifier(image, 4, 3, 4, control=None, constraint=free, key=key)  # wrong
    ide.ImageStage((8, 8), 4, control=theta, constraint=free, key=key)  # wrong
    ide.OperatorModel(8, control=theta, constraint=free, key=key)  # wrong
    ide.FunctionClassifier(8, 3, 4, theta, constraint=free, key=key)  # wrong
    ide.FunctionRegressor(8, 4, control=theta, constraint=free, key=key, grid="line")  # wrong
    MomentumLanguageModel(3, 8, 4, control=theta, constraint=free, key=key, x=1)  # wrong
    ide.OperatorModel(
        8,
        4,
        control=theta,
        constraint=free,
        key=key,
        output_normalization=scheme,  # wrong
    )
    return ide.LanguageModel(3, 8, 4, control=theta, constraint=free, key=key)  # wrong
