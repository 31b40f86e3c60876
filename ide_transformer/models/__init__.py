"""Models: inputs, an equation, a read-out."""

from .audio import AudioInputs, TokenConvolution
from .build import (
    EncoderDecoder,
    ImageClassifier,
    ImageEncoder,
    ImageStage,
    LanguageModel,
    OperatorModel,
    SequenceClassifier,
    SpeechEncoder,
    StagedModel,
    StateModel,
    TextEncoder,
    TranslationModel,
    UShapedModel,
)
from .cached_decoder import CachedDecoder, why_not_cached
from .causality import check_causal
from .chains import EncodedInputs, GridInputs, SourceAndText, StageInputs, VCycleInputs
from .compiled import compiled
from .functions import Field, FunctionInputs, FunctionValues
from .generate import generate, generate_beam, generate_greedy
from .images import AbstractImageInputs, ImageInputs
from .mesh import Mesh
from .model import Discretization, Model, functional, is_built_as, kinds_of
from .parts import AbstractInputs, AbstractReadOut, Embedded, Encoded, Text
from .read_outs import (
    AbstractClassifier,
    MaskedTokenHead,
    MeanHead,
    PrefixAndMeanHead,
    PrefixHead,
    States,
    TokenLogits,
    mean_vectors,
    sentence_embedding,
)
from .text_inputs import TextInputs
