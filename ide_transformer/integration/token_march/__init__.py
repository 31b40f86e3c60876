"""Marching the tokens of a text one after the other, with a cache."""

from .by_token import why_not_by_token as why_not_by_token
from .cache import TokenCache as TokenCache
from .token_march import TokenMarch as TokenMarch
