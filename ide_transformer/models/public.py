"""Public names of the models."""

from .build import (
    FunctionClassifier,
    FunctionRegressor,
    ImageClassifier,
    ImageStage,
    LanguageModel,
    OperatorModel,
    SequenceClassifier,
    SequenceRegressor,
    StagedModel,
)
from .cached_decoder import CachedDecoder, why_not_cached
from .chains import StageInputs
from .compiled import compiled
from .functions import Field, FunctionInputs, FunctionValues, fed_back, outputs_at
from .generate import generate
from .images import AbstractImageInputs, ImageInputs
from .model import Model, functional
from .parts import AbstractInputs, AbstractReadOut, Embedded, Encoded, Text, Timed
from .read_outs import (
    AbstractClassifier,
    MeanHead,
    MeanValues,
    PrefixAndMeanHead,
    PrefixHead,
    States,
    TokenLogits,
)
from .text_inputs import TextInputs
from .units import statistics
