"""The Hub of the tests answers the real client as the Hub does."""

import hashlib

import pytest
from huggingface_hub import HfApi, get_hf_file_metadata, hf_hub_url
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import get_session

ANN, BOB = HfApi(token="hf_ann"), HfApi(token="hf_bob")
FILES = {"a.txt": b"one", "folder/b.txt": b"another", "large.bin": bytes(30_000)}


@pytest.fixture(params=["model", "dataset"])
def pushed(hub, request):
    ANN.create_repo("ann/things", repo_type=request.param)
    for name, content in FILES.items():
        ANN.upload_file(
            path_or_fileobj=content,
            path_in_repo=name,
            repo_id="ann/things",
            repo_type=request.param,
        )
    return hub.repositories[request.param, "ann/things"]


def test_the_account_of_a_token(hub):
    assert ANN.whoami()["name"] == "ann"
    with pytest.raises(HfHubHTTPError):
        HfApi(token="none").whoami()


def test_what_was_pushed_is_listed_and_read(pushed):
    kind = {"repo_type": pushed.kind}
    assert set(ANN.list_repo_files("ann/things", **kind)) == FILES.keys()
    entries = ANN.list_repo_tree("ann/things", "folder", **kind)
    assert [(entry.path, entry.size) for entry in entries] == [("folder/b.txt", 7)]
    assert ANN.repo_info("ann/things", **kind).sha == pushed.sha
    url = hf_hub_url("ann/things", "large.bin", endpoint=ANN.endpoint, **kind)
    metadata = get_hf_file_metadata(url)
    etag = hashlib.sha256(FILES["large.bin"]).hexdigest()
    assert (metadata.etag, metadata.size, metadata.commit_hash) == (etag, 30_000, pushed.sha)
    part = get_session().get(url, headers={"Range": "bytes=29998-"})
    assert (part.status_code, part.content) == (206, bytes(2))
    with pytest.raises(EntryNotFoundError):
        ANN.hf_hub_download("ann/things", "none.txt", **kind)
    with pytest.raises(RevisionNotFoundError):
        ANN.hf_hub_download("ann/things", "a.txt", revision="none", **kind)


def test_who_may_read_and_write(pushed):
    kind = {"repo_type": pushed.kind}
    with pytest.raises(HfHubHTTPError, match="403"):
        BOB.upload_file(path_or_fileobj=b"", path_in_repo="x", repo_id="ann/things", **kind)
    with pytest.raises(HfHubHTTPError, match="403"):
        BOB.create_repo("ann/others", **kind)
    pushed.gated = True
    with pytest.raises(GatedRepoError):
        BOB.hf_hub_download("ann/things", "a.txt", **kind)
    pushed.private = True
    with pytest.raises(RepositoryNotFoundError):
        BOB.repo_info("ann/things", **kind)
    assert ANN.hf_hub_download("ann/things", "a.txt", **kind)


@pytest.mark.parametrize(
    "metadata",
    [
        "model-index:\n- name: x\n  results:\n  - task: {type: image-classification}",
        "tags: one",
        "base_model: /home/ann/model",
    ],
)
def test_metadata_that_is_refused(hub, metadata):
    ANN.create_repo("ann/things")
    card = f"---\n{metadata}\n---\n".encode()
    with pytest.raises(ValueError, match=r"required|array|not a valid model id"):
        ANN.upload_file(path_or_fileobj=card, path_in_repo="README.md", repo_id="ann/things")
    assert hub.repositories["model", "ann/things"].files == {}
