"""Upload a finished run's model/ to the hub, with the hub library's own login."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from headswap.bodyfiles import one_line
from headswap.durable import check_sealed
from headswap.errors import ConfigError, RunError
from headswap.predict.folder import locate

_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def push(run: Path, name: str, private: bool = False) -> str:
    """Upload model/ of a run: weights, tokenizer, config.json and the model card. Return the address.

    Args:
        name: OWNER/NAME; a repository that exists gets a new commit.
        private: make the repository private; one that exists and is public is refused.

    Raises:
        ConfigError: not such a name, nobody is logged in, or the hub is switched off here.
        RunError: the hub refused, or could not be reached.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(f"--push: not a hub id; found {name!r}; give OWNER/NAME")
    folder, config = locate(run)
    if config is None:
        raise ConfigError(f"{run}: not a run's folder; found a plain checkpoint; name the folder that headswap printed")
    check_sealed(folder)
    return _uploaded(folder, name, private)


def _uploaded(folder: Path, name: str, private: bool) -> str:
    import huggingface_hub
    from huggingface_hub import constants

    if constants.is_offline_mode():
        raise ConfigError("--push: the hub is switched off; found HF_HUB_OFFLINE=1; unset it")
    token = huggingface_hub.get_token()
    if not token:
        raise ConfigError("--push: nobody is logged in to the hub; found no token; run: hf auth login")
    api: Any = huggingface_hub.HfApi()
    try:
        address = str(api.create_repo(name, private=private, exist_ok=True))
        public = private and not api.repo_info(name).private  # it was there before
        if not public:
            api.upload_folder(repo_id=name, folder_path=str(folder), commit_message="A model fine-tuned by headswap")
    except Exception as fault:  # noqa: BLE001 (the hub's library, and the one below it, have errors of their own)
        found, owner = one_line(fault).replace(token, "***"), name.partition("/")[0]
        raise RunError(
            f"--push: the hub did not take it; found {found}; check that {owner} is yours, that the token may write "
            "(hf auth whoami), and the network"
        ) from None  # its traceback can hold the token
    if public:
        raise ConfigError(f"--private: the repository exists and is public; found {name}; name another")
    return address
