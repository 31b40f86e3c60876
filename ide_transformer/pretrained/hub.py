"""Fetches models of the Hugging Face hub, by huggingface_hub and into its cache."""

from pathlib import Path

from ..errors import InputError
from ..packages import announce, require


_READ = ["*.json", "*.txt", "*.model", "*.jinja", "*.safetensors"]
# Weights for other programs.
_UNREAD = ["*/*.safetensors"]


def hub_folder(name: str, revision: str | None) -> Path:
    """The folder of the model `owner/name` in the cache of huggingface_hub, fetched the first
    time. A cached revision is not looked up again. Of weights only safetensors are fetched.

    **Raises:** `InputError` if huggingface_hub is missing, or the model cannot be fetched.
    """
    require("huggingface_hub", "hub", f"{name} is not here, and models of the hub are read by")
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    def find_folder(local: bool) -> Path:
        folder = snapshot_download(
            name,
            revision=revision,
            local_files_only=local,
            allow_patterns=_READ,
            ignore_patterns=_UNREAD,
        )
        return Path(str(folder))

    cache = Path(constants.HF_HUB_CACHE)
    try:
        folder = find_folder(local=True)
    except (HFValidationError, LocalEntryNotFoundError):
        folder = cache / name
    if any(folder.glob("*.safetensors")):
        return folder
    if not constants.is_offline_mode():
        announce(f"fetching {name} from the Hugging Face hub", cache)
    try:
        folder = find_folder(local=False)
    # Any exception, since httpx raises its own ones.
    except Exception as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise InputError(
            f"{name} is not here, and cannot be fetched from the hub ({reason}). On a machine "
            f"that can, run hf download {name}, and copy its cache to {cache}."
        ) from None
    return folder
