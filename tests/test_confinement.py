"""Names that an index, a manifest or a list of runs gives: nothing outside their folder is opened."""

import json

import pytest

from headswap.bodies.transformer import TransformerBody
from headswap.confinement import confined
from headswap.errors import DataError, HeadswapError, RunError, WeightsError
from headswap.predict.predictor import Predictor
from swapping import swap

COMMIT = "0123456789abcdef0123456789abcdef01234567"
OUTSIDE = (
    "", " ", ".", "..", "../x", "a/../../x", "a/../x", "/etc/passwd", "~/x", "C:x", "..\\x", "a\\b", "a\0b", "a/..", None,
    7, ["x"], "link", "folder/link", "linked/inside",
)  # fmt: skip


@pytest.mark.parametrize("name", OUTSIDE, ids=repr)
@pytest.mark.parametrize("error", [RunError, WeightsError, DataError])
def test_a_name_that_leads_out_of_its_folder_is_refused(name, error, tmp_path):
    folder = tmp_path / "folder"
    (folder / "folder").mkdir(parents=True)
    (tmp_path / "x").write_text("outside")
    (tmp_path / "inside").write_text("outside")
    (folder / "link").symlink_to(tmp_path / "x")
    (folder / "folder" / "link").symlink_to("../../x")
    (folder / "linked").symlink_to(tmp_path)
    with pytest.raises(
        error, match=r"^index\.json: names a file outside its folder; found .*; such a file is not read"
    ):
        confined(folder, name, "index.json", error)


def test_a_name_inside_its_folder_is_returned_whether_or_not_it_exists(tmp_path):
    real = tmp_path / "real"
    (real / "sub").mkdir(parents=True)
    (real / "sub" / "x..y").write_text("")
    (real / "link").symlink_to("sub/x..y")
    (tmp_path / "folder").symlink_to(real)
    for name in ("sub/x..y", "link", "absent", "a/b/c", "...", "x~"):
        assert confined(tmp_path / "folder", name, "index.json") == tmp_path / "folder" / name


def test_a_snapshot_of_the_hub_may_link_to_its_own_blobs_alone(tmp_path):
    repository = tmp_path / "hub" / "models--a--b"
    snapshot = repository / "snapshots" / COMMIT
    for place in (snapshot, repository / "blobs", tmp_path / "hub" / "blobs" / "ab"):
        place.mkdir(parents=True)
    (repository / "blobs" / "one").write_text("")
    (tmp_path / "hub" / "blobs" / "ab" / "two").write_text("")
    (repository / "blobs" / "two").symlink_to("../../blobs/ab/two")
    for name, target in {"one": "../../blobs/one", "two": "../../blobs/two", "bad": "../../refs/main"}.items():
        (snapshot / name).symlink_to(target)
    assert confined(snapshot, "one", "index.json") == snapshot / "one"
    for name in ("bad", "two"):
        with pytest.raises(RunError, match="a symlink to"):
            confined(snapshot, name, "index.json")
    (tmp_path / "hub" / "blobs" / ".huggingface-shared-blobs").write_text("1\n")
    assert confined(snapshot, "two", "index.json") == snapshot / "two"


@pytest.mark.parametrize("name", ["../../x.safetensors", "ABSOLUTE", "link.safetensors", ""])
def test_an_index_that_names_shards_elsewhere_is_refused(name, tiny_body, variant, tmp_path):
    folder = variant(tiny_body)
    outside = tmp_path / "x.safetensors"
    (folder / "model.safetensors").rename(outside)
    (folder / "link.safetensors").symlink_to(outside)
    name = str(outside) if name == "ABSOLUTE" else name
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    for use in (lambda: swap(folder), TransformerBody(str(folder)).identity, lambda: Predictor(folder)):
        with pytest.raises(WeightsError, match=r"index\.json: names a file outside its folder"):
            use()


@pytest.mark.parametrize("table", [None, [], "x", {}])
def test_an_index_without_names_is_refused(table, tiny_body, variant):
    folder = variant(tiny_body)
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": table}))
    with pytest.raises(WeightsError, match="shards are missing; found 0 of 0"):
        swap(folder)


@pytest.mark.parametrize("name", ["/etc", "..", "../..", "../../x", "run", "../a/b", "../../../etc/passwd"])
def test_a_study_names_only_the_runs_beside_it(name, tmp_path):
    from headswap.config import compose, dump
    from headswap.study import execute

    study = tmp_path / "experiment" / "study"
    study.mkdir(parents=True)
    (study / "config.yaml").write_text(dump(compose()))
    record = {"arm": "finetune", "size": None, "seed": 0, "folder": name, "status": "finished"}
    (study / "runs.json").write_text(json.dumps([record]))
    with pytest.raises(HeadswapError, match=r"runs\.json: names a run outside the study's neighbours; found "):
        execute.remake(study)
