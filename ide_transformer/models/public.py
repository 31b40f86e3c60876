"""Its public names."""

from .audio import AudioInputs, TokenConvolution
from .build import (
    EncoderDecoder,
    ImageClassifier,
    ImageStage,
    LanguageModel,
    OperatorModel,
    SequenceClassifier,
    StagedModel,
    StateModel,
    TranslationModel,
)
from .cached_decoder import CachedDecoder, why_not_cached
from .chains import EncodedInputs, GridInputs, SourceAndText, StageInputs
from .compiled import compiled
from .functions import ChannelsFirst, Field, FunctionInputs, FunctionValues
from .generate import generate, generate_greedy
from .images import AbstractImageInputs, ImageInputs
from .model import Model, functional
from .parts import AbstractInputs, AbstractReadOut, Embedded, Encoded, Text
from .read_outs import (
    AbstractClassifier,
    MeanHead,
    PrefixAndMeanHead,
    PrefixHead,
    States,
    TokenLogits,
)
from .text_inputs import TextInputs
