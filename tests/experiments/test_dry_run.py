"""``--dry-run``: the stages that a run would do, in order, what is done, and nothing written."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import SimpleITK as sitk
import tyro
from flax import nnx

import encoders
from experiments.common.outlook import Outlook, Step, amount
from experiments.common.rehearsal import Rehearsal
from experiments.common.run_record import RunRecord
from lens.cohort import factor_phantom, read_manifest, write_phantoms
from lens.errors import InputError
from lens.files import read_table
from lens.radiomics.computable import count_columns
from lens.radiomics.parameters import load_parameters
from tests.planted import QUICK, plant, plant_quick
from tests.radiomics.phantoms import write_cohort
from tests.undrawn import undraw

SHAPE, SPACING = ["16", "24", "24"], ["2", "2", "3"]

FILTERED = """
setting: {binWidth: 50}
imageType: {Original: {}, Wavelet: {}, LoG: {sigma: [2.0, 3.0]}, Square: {}}
featureClass: {shape: , firstorder: [Mean, Energy], ngtdm: }
"""


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of every file and folder."""
    return {
        str(path.relative_to(folder)): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
    }


def dry(
    config: Any, job: Callable[[Any], int], words: list[str], folder: Path, capsys: Any
) -> dict[str, str]:
    """Stage -> state, as printed; nothing in the folder has changed."""
    capsys.readouterr()
    before = snapshot(folder)
    assert job(tyro.cli(config, args=[*words, "--dry-run"])) == 0
    assert snapshot(folder) == before
    said = capsys.readouterr().out
    assert re.search(r"^sizes: ", said, re.M)
    assert re.search(r"^time: ", said, re.M)
    assert re.search(r"^memory: ", said, re.M)
    assert re.search(r"^disk: .* are free", said, re.M)
    lines = said.partition("stages:\n")[2].splitlines()
    stages = dict(re.split(r"\s{2,}", line.strip(), maxsplit=1) for line in lines if line[0] == " ")
    return stages | {"all": said}


def test_the_stages_of_the_main_job_and_which_are_done(tmp_path, capsys, monkeypatch) -> None:
    from experiments.sweep import Config, job

    undraw(monkeypatch)
    paths, out = plant_quick().write(tmp_path), tmp_path / "run"
    words = ["--pre", str(paths["pre"]), "--radiomics", str(paths["radiomics"])]
    words += ["--ft", f"cls={paths['ft']}", "--ft", f"reg={paths['ft']}", "--out", str(out)]
    words += ["--scope", "reg=t2.gland"]
    for name, value in QUICK.items():
        words += [f"--{name}", *map(str, value if isinstance(value, tuple) else (value,))]
    fresh = dry(Config, job, words, tmp_path, capsys)
    said = fresh.pop("all")
    assert fresh.pop("report").startswith("to do")
    assert all(state.startswith("to do") for state in fresh.values())
    assert re.search(r"cross-validation: 8 fits, about \d+ s", said)
    assert "90 rows" in said
    assert job(tyro.cli(Config, args=words)) == 0
    record = json.loads((out / "run.json").read_text())
    assert list(fresh) == list(record["stages"]), "the same stages, in the same order"
    done = dry(Config, job, words, tmp_path, capsys)
    assert all(done[name] == "done before, reused" for name in fresh)
    (out / "cls" / "verdicts.parquet").unlink()
    cut = dry(Config, job, words, tmp_path, capsys)
    undone = {name for name in fresh if not cut[name].startswith("done")}
    assert undone == {"cross-validation", "doctor", "shift cls"}
    assert re.search(r"to do; took \d+ s last time", cut["cross-validation"])


def test_what_the_run_would_refuse_the_dry_run_refuses(tmp_path, capsys) -> None:
    from experiments.sweep import Config, job

    paths = plant(n=60, d=6).write(tmp_path)
    words = ["--pre", str(paths["pre"]), "--radiomics", str(paths["radiomics"])]
    words += ["--ft", f"cls={paths['ft']}", "--roi", "glnd", "--out", str(tmp_path / "run")]
    messages = []
    for more in ([], ["--dry-run"]):
        with pytest.raises(InputError) as caught:
            job(tyro.cli(Config, args=[*words, *more]))
        messages.append(str(caught.value))
    assert messages[0] == messages[1]
    assert "did you mean gland" in messages[0]


def _whole_anatomy(folder: Path) -> None:
    write_phantoms(folder, 10, 0, progress=False)


def _factors(folder: Path) -> None:
    factor_phantom.write_cohort(folder, 10, 0, progress=False)


@pytest.mark.parametrize(
    ("form", "features", "channels", "write"),
    [(["--full"], 5022, 320, _whole_anatomy), ([], 207, 192, _factors)],
)
def test_the_embedded_default_names_the_stages_that_it_would_record(
    tmp_path, capsys, form, features, channels, write
) -> None:
    from experiments.main_job.phantoms import from_phantoms, stage_names
    from experiments.main_job.plan import settle
    from experiments.sweep import Config, job

    words = [*form, "--phantoms", "10", "--out", str(tmp_path / "run")]
    told = dry(Config, job, words, tmp_path, capsys)
    sizes = f"{features} features, {channels} dim"
    assert f"10 rows (patients, or studies of them), {sizes}" in told["all"]
    write(tmp_path / "run" / "cohort")
    plan = settle(tyro.cli(Config, args=words))
    record = Rehearsal(plan.out)
    before = snapshot(tmp_path)
    from_phantoms(plan, record)
    assert snapshot(tmp_path) == before
    assert [step.name for step in record.steps] == stage_names(plan)[1:]
    assert list(told)[: len(record.steps) + 1] == stage_names(plan)
    again = dry(Config, job, words, tmp_path, capsys)
    assert again["phantoms"] == "done before, reused"
    assert again["pre-train"].startswith("to do")


def test_a_rehearsal_takes_nothing_for_done_that_reads_what_is_to_be_written(tmp_path) -> None:
    record = RunRecord(tmp_path, {})
    first, second = tmp_path / "first", tmp_path / "second"
    record.stage("first", (), 1, [first], lambda: first.write_text("one"))
    record.stage("second", (), record.content(first), [second], lambda: second.write_text("two"))

    def rehearse(fact: int) -> list[bool]:
        rehearsal = Rehearsal(tmp_path)
        rehearsal.stage("first", (), fact, [first], pytest.fail)
        rehearsal.stage("second", (), rehearsal.content(first), [second], pytest.fail)
        return [step.reused for step in rehearsal.steps]

    assert rehearse(1) == [True, True]
    assert rehearse(2) == [False, False]


def test_the_stages_on_images_rest_on_the_voxels_beside_a_header(phantoms, tmp_path) -> None:
    from experiments.main_job.images import from_cohort
    from experiments.main_job.plan import settle
    from experiments.sweep import Config

    class Keys(Rehearsal):
        """Keeps what the stages rest on."""

        found: dict[str, object]

        def stage(self, name, code, depends, outputs, work, *, lasting=False) -> None:
            self.found[name] = depends

    shutil.copytree(phantoms.parent, tmp_path / "cohort")
    manifest = tmp_path / "cohort" / phantoms.name
    first = read_manifest(manifest).cases[0].images["t2"]
    sitk.WriteImage(sitk.ReadImage(str(first)), str(first.with_suffix(".mhd")))
    shown = str(first.relative_to(manifest.parent))
    manifest.write_text(manifest.read_text().replace(shown, shown.replace(".mha", ".mhd")))
    words = ["--cohort", str(manifest), "--encoder-pre", str(phantoms.parent / "encoder")]
    words += ["--encoder-ft", f"cls={phantoms.parent / 'encoder'}", "--out", str(tmp_path / "run")]
    plan = settle(tyro.cli(Config, args=words))

    def rests_on() -> dict[str, object]:
        record = Keys(plan.out)
        record.found = {}
        from_cohort(plan, record)
        return record.found

    before = rests_on()
    assert rests_on() == before
    raw = first.with_suffix(".raw")
    raw.write_bytes(raw.read_bytes()[::-1])
    after = rests_on()
    assert {name for name in before if after[name] != before[name]} == {"radiomics", "embed pre"}


def test_radiomics_counts_finished_cases_and_features(tmp_path, capsys) -> None:
    from experiments.radiomics import Config, job

    manifest = write_cohort(tmp_path / "cohort", ["a", "b"])
    (tmp_path / "p.yaml").write_text(FILTERED)
    words = ["--cohort", str(manifest), "--out", str(tmp_path / "R.csv"), "--workers", "1"]
    words += ["--parameters", str(tmp_path / "p.yaml")]
    told = dry(Config, job, words, tmp_path, capsys)
    assert told["radiomics"] == "to do; 0 of 2 cases done before"
    assert re.search(r"radiomics: about [\d.]+ [MG]B in each of 1 process", told["all"])
    assert job(tyro.cli(Config, args=words)) == 0
    columns = read_table(tmp_path / "R.csv").shape[1] - 1
    assert f"2 cases, about {columns} features each" in told["all"]
    again = dry(Config, job, words, tmp_path, capsys)
    assert again["radiomics"] == "done before, reused; 2 of 2 cases done before"


def test_our_own_parameters_ask_for_the_features_of_the_paper(tmp_path) -> None:
    manifest = write_phantoms(tmp_path, 1, 0, progress=False)
    (case,) = read_manifest(manifest).cases
    case.masks.pop("lesion", None)
    assert count_columns(case, load_parameters()) == 2511


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phantoms")
    config = encoders.ConvNeXtV2Config(depths=(1,), widths=(8,), strides=())
    encoders.save(folder / "encoder", encoders.ConvNeXtV2(config, rngs=nnx.Rngs(0)))
    return write_phantoms(folder, 10, 0, progress=False)


def test_embed_counts_finished_cases(phantoms, tmp_path, capsys) -> None:
    from experiments.embed import Config, job

    words = ["--cohort", str(phantoms), "--encoder", str(phantoms.parent / "encoder")]
    words += ["--out", str(tmp_path / "E.npz"), "--shape", *SHAPE, "--spacing", *SPACING]
    told = dry(Config, job, words, tmp_path, capsys)
    assert told["embed"] == "to do; 0 of 10 cases done before"
    assert "10 cases, 8 dimensions" in told["all"]
    assert job(tyro.cli(Config, args=words)) == 0
    again = dry(Config, job, words, tmp_path, capsys)
    assert again["embed"] == "done before, reused; 10 of 10 cases done before"


@pytest.mark.parametrize("job_name", ["pretrain", "finetune"])
def test_trainings_say_how_far_they_are(phantoms, tmp_path, capsys, job_name) -> None:
    import importlib

    module = importlib.import_module(f"experiments.{job_name}")
    words = ["--cohort", str(phantoms), "--init", str(phantoms.parent / "encoder")]
    words += ["--out", str(tmp_path / "run"), "--shape", *SHAPE, "--spacing", *SPACING]
    words += ["--epochs", "3", "--batch", "4", "--seeds", "2"]
    own = {"pretrain": ["--patch", "8"], "finetune": ["--task", "regression", "--label"]}
    words += own[job_name] + (["volume_ml"] if job_name == "finetune" else [])
    told = dry(module.Config, module.job, words, tmp_path, capsys)
    assert told["read"] == "to do; 0 of 10 volumes made before"
    assert told["seed 0"] == told["seed 1"] == "to do; 6 steps"
    assert "10 cases (7 train, 1 val, 2 test)" in told["all"]
    (tmp_path / "run/seed-1/checkpoints/4").mkdir(parents=True)
    again = dry(module.Config, module.job, words, tmp_path, capsys)
    assert "goes on from step 4" in again["seed 1"]
    assert "are trained besides" not in told["all"]
    if job_name == "finetune":
        lora = dry(module.Config, module.job, [*words, "--lora", "2"], tmp_path, capsys)
        # Two layers, 8 to 32 channels and back.
        assert "of which 160 numbers are trained besides the head" in lora["all"]


def test_doctor_counts_its_fits(tmp_path, capsys, monkeypatch) -> None:
    from experiments.doctor import Config, job

    paths = plant(n=60, d=6).write(tmp_path)
    words = ["--pre", str(paths["pre"]), "--radiomics", str(paths["radiomics"]), "--folds", "3"]
    words += ["--out", str(tmp_path / "out"), "--flips", "50", "--draws", "1", "--maps", "1"]
    told = dry(Config, job, words, tmp_path, capsys)
    counted = []

    class Counted(Exception):
        """Enough is known."""

    def stop(*arguments: Any, on_fit: Any, **_: Any) -> Any:
        raise Counted

    def bar(total: int, *_: str) -> Any:
        from lens.progress import silent

        counted.append(total)
        return silent(total, "", "")

    monkeypatch.setattr("lens.verdicts.doctor.examine", stop)
    monkeypatch.setattr("lens.progress.tqdm_bar", bar)
    with pytest.raises(Counted):
        job(tyro.cli(Config, args=words))
    assert told["planted changes"] == f"to do; {counted[0]} fits"
    assert re.search(r"time: at most about \d+ (s|min)", told["all"])


def test_more_than_is_free_is_said(tmp_path) -> None:
    steps = [Step("only")]
    assert "MORE THAN IS FREE" in str(Outlook(steps, [], tmp_path, disk={"much": 1e18}))
    assert "MORE" not in str(Outlook(steps, [], tmp_path, disk={"little": 1e3}))
    assert [amount(size) for size in (1.0, 2.5e3, 1.2e6, 3e9)] == [
        "1 bytes", "2.5 kB", "1.2 MB", "3.0 GB",
    ]  # fmt: skip
