"""Save and load modules by folder or by name on the Hugging Face Hub, as PyTorchModelHubMixin spells it."""

from abc import abstractmethod
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from mae_kit.classes.configured import Configured
from mae_kit.errors import UserError

AnyModule = TypeVar("AnyModule", bound="HubModule")


class HubModule(Configured):
    """A module with `save_pretrained`, `from_pretrained` and `push_to_hub`; its files are those of a run folder."""

    @abstractmethod
    def write(self, folder: Path) -> None:
        """Write the module's files into a folder that exists."""

    @classmethod
    @abstractmethod
    def read(cls, folder: Path, **options: Any) -> "HubModule":
        """Load the module from a folder."""

    def save_pretrained(
        self, save_directory: Path | str, *, repo_id: str | None = None, push_to_hub: bool = False, **options: Any
    ) -> str | None:
        """Write the module to a folder, each file atomically.

        Args:
            save_directory: The folder; it is made.
            repo_id: On the Hub, for `push_to_hub`; by default the name of the folder.
            push_to_hub: Whether to upload it, too.
            options: Of `push_to_hub`.

        Returns:
            The URL of the commit, if it was uploaded.

        Raises:
            UserError: The statistics of the images, which belong to the weights, are unknown.
        """
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        self.write(folder)
        return self.push_to_hub(repo_id or folder.name, **options) if push_to_hub else None

    @classmethod
    def from_pretrained(
        cls: type[AnyModule],
        pretrained_model_name_or_path: Path | str,
        *,
        revision: str | None = None,
        cache_dir: Path | str | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
        token: str | bool | None = None,
        **options: Any,
    ) -> AnyModule:
        """Load the module, in eval mode.

        Args:
            pretrained_model_name_or_path: A run folder, a folder that `save_pretrained` wrote, or a name on the Hub.
            revision: Branch, tag or commit on the Hub.
            cache_dir: Where downloads are kept; by default the Hub's own cache.
            force_download: Download again.
            local_files_only: Never download.
            token: For private repositories.
            options: Arguments of the objective that replace those of training, as mask_ratio; `trusted=True` builds
                classes outside mae_kit.

        Raises:
            UserError: There is no such file, it is damaged, or it holds a module of another class.
        """
        folder = Path(pretrained_model_name_or_path)
        if not folder.exists():
            from huggingface_hub import snapshot_download

            downloaded = snapshot_download(
                str(pretrained_model_name_or_path),
                revision=revision,
                cache_dir=cache_dir,
                force_download=force_download,
                local_files_only=local_files_only,
                token=token,
                allow_patterns=["*.safetensors", "*.json"],
            )
            folder = Path(downloaded)
        module = cls.read(folder, **options)
        if not isinstance(module, cls):
            what = f"{pretrained_model_name_or_path} holds a {type(module).__name__}, not a {cls.__name__}"
            raise UserError("pretrained.class", what, f"call {type(module).__name__}.from_pretrained")
        return module

    def push_to_hub(
        self,
        repo_id: str,
        *,
        commit_message: str = "Push model using mae_kit",
        private: bool | None = None,
        token: str | None = None,
        branch: str | None = None,
        create_pr: bool | None = None,
    ) -> str:
        """Upload the module to the Hub.

        Args:
            repo_id: The repository, `USER/NAME`; it is made.
            commit_message: Of the commit.
            private: Whether a new repository is private; by default as the account says.
            token: By default the one that `hf auth login` stored.
            branch: By default the main one.
            create_pr: Open a pull request instead.

        Returns:
            The URL of the commit.
        """
        from huggingface_hub import HfApi

        api = HfApi(token=token)
        repo = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        with TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            return api.upload_folder(
                repo_id=repo, folder_path=folder, commit_message=commit_message, revision=branch, create_pr=create_pr
            )
