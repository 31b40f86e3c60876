from .generate import generate as generate
from .image_classifier import ImageClassifier as ImageClassifier
from .language_model import LanguageModel as LanguageModel
from .model import AbstractModel as AbstractModel, Scheme as Scheme
