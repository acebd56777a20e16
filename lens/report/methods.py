"""The methods of a run as text to paste: every number from its settings and tables."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from lens.citation import MESSAGE, bibtex
from lens.files import write_text
from lens.intervals import LEVEL
from lens.report.answer_caveats import exposure, left_out
from lens.report.results import Results, Scope
from lens.report.words import literal, modality_name, short
from lens.settings import SweepConfig, doctor_form
from lens.verdicts.clusters import THRESHOLD
from lens.verdicts.learning import LASTING
from lens.verdicts.power import POWER
from lens.verdicts.retraining import MIN_ENCODERS

METHODS = "methods.md"
"""Name of the file in the run folder."""

REFERENCES = {
    "paper": "Wang et al. What Fine-Tuning Changes: A Radiomic Lens on Prostate Foundation Model "
    "Representations. Medical Imaging with Deep Learning (MIDL), 2026.",
    "pyradiomics": "van Griethuysen JJM et al. Computational Radiomics System to Decode the "
    "Radiographic Phenotype. Cancer Research 77(21), 2017.",
    "gcv": "Golub GH, Heath M, Wahba G. Generalized Cross-Validation as a Method for Choosing a "
    "Good Ridge Parameter. Technometrics 21(2), 1979.",
    "influence": "Cook RD, Weisberg S. Residuals and Influence in Regression. Chapman and Hall, "
    "1982.",
    "maxt": "Westfall PH, Young SS. Resampling-Based Multiple Testing. Wiley, 1993.",
    "fdr": "Benjamini Y, Hochberg Y. Controlling the False Discovery Rate. Journal of the Royal "
    "Statistical Society B 57(1), 1995.",
    "tost": "Schuirmann DJ. A Comparison of the Two One-Sided Tests Procedure and the Power "
    "Approach. Journal of Pharmacokinetics and Biopharmaceutics 15(6), 1987.",
    "moderated": "Smyth GK. Linear Models and Empirical Bayes Methods for Assessing Differential "
    "Expression. Statistical Applications in Genetics and Molecular Biology 3(1), 2004.",
    "adam": "Kingma DP, Ba J. Adam: A Method for Stochastic Optimization. ICLR, 2015.",
    "jax": "Bradbury J et al. JAX: composable transformations of Python+NumPy programs, 2018.",
}
"""Literature by the key that the text cites it under."""


EXPOSURE = {
    "some": "a gain had to hold in patients whom fine-tuning did not see",
    "none": "fine-tuning saw none of the patients",
    "all": "fine-tuning saw every patient, so that no gain was called",
    "unknown": "whom fine-tuning saw is not known",
}
"""What is said of `lens.report.verdicts_section.exposure`."""


def write_methods(folder: Path, results: Results) -> None:
    """Writes ``methods.md`` into a run folder."""
    write_text(folder / METHODS, methods(results))


def methods(results: Results) -> str:
    """Markdown: data, verdicts, the paper's analysis, software, references, how to cite."""
    parts = {
        "Data": _data(results),
        "Which features changed": _verdicts(results),
        "What else was looked at": _around(results),
        "Analysis on one split": _split(results),
        "Software": _software(results),
    }
    body = "\n\n".join(f"## {title}\n\n{text}" for title, text in parts.items() if text)
    body, listed = _numbered(body)
    version = str(results.run["versions"].get("radiomic-lens", ""))
    return (
        f"# Methods\n\n{body}\n\n## References\n\n{listed}\n\n## How to cite\n\n{MESSAGE}\n\n"
        f"```bibtex\n{bibtex(version)}```\n"
    )


def _data(results: Results) -> str:
    run, config = results.run, results.run["config"]
    tasks = ", ".join(map(_named, run["tasks"]))
    said = [
        f"Embeddings of an image encoder before and after fine-tuning were compared (tasks: "
        f"{tasks}) by how well radiomic features are read from them [paper]."
    ]
    several = len(results.scopes) > 1
    for name, scope in results.scopes.items():
        facts = scope.facts
        of = [task for task, each in run["tasks"].items() if each == name]
        start = f"For {', '.join(map(_named, of))}, there" if several else "There"
        where = " and ".join(map(_named, facts["rois"]))
        images = ", ".join(map(_named, _images(results, of)))
        said.append(
            f"{start} were {facts['patients']} patients with {facts['columns']} radiomic features "
            f"of {', '.join(modality_name(_named(m)) for m in facts['modalities'])} in the region "
            f"{where} (images: {images}), and embeddings of {facts['embedding_width']} dimensions."
        )
        if left := len(scope.dropped):
            said.append(f"{left} radiomic columns were left out before the analysis.")
    said += [statement.text for statement in left_out(results)]
    if "spacing" in config and not config.get("pre"):
        grid = " x ".join(f"{each:g}" for each in config["spacing"])
        said.append(
            f"Images were resampled to {grid} mm; features were extracted with PyRadiomics "
            "[pyradiomics]."
        )
    said.append(
        "Features were clustered for display where they are near copies (complete linkage, all "
        f"members with an absolute Spearman correlation above {THRESHOLD:g})."
    )
    return " ".join(said)


def _verdicts(results: Results) -> str:
    config = results.run["config"]
    level, margin, flips = config["level"], config["margin"], config["flips"]
    scores = (
        "Each feature was replaced by its normal scores (ranks as quantiles of the normal "
        "distribution, fitted inside the fold)."
        if config["scores"] == "normal"
        else "Features entered by their own values."
    )
    schemes = dict.fromkeys(_scheme(scope) for scope in results.scopes.values())
    return "\n\n".join(
        [
            f"Features were predicted from either embedding in patients held out: "
            f"{'; '.join(schemes)}, with everything fitted inside the fold. {scores} The probe was "
            "ridge regression with a penalty of its own per feature, by generalised "
            "cross-validation [gcv]. The embedding was presented in three ways, of which a change "
            "had to be shown in all: each channel divided by its own standard deviation; all "
            "channels by one number; the leading principal components at equal variance. R2 is the "
            "share of a feature's variation between patients that is explained; its change is "
            f"after minus before. {LEVEL:.0%} intervals and tests rest on each patient's influence "
            "on the estimate, that on the fitted probes included, by leaving the patient out "
            "[influence].",
            f"A feature was called lost or gained where R2 changed by at least {margin:g}, the "
            f"interval excluded zero, and p was at most {level:g} family-wise over all features "
            f"(maxT over {flips} random sign flips of the patients' influences, the largest p of "
            "the three views [maxt]). False discovery rates are those of Benjamini and Hochberg "
            "[fdr]. Where one embedding needed more patients to be read than the other (learning "
            "curve from fits to all and to half of the patients), a change to its disadvantage "
            "also had to hold in the R2 extrapolated to very many patients, with at least "
            f"{LASTING:.0%} of all changes left there. Recoded: neither, but a two-layer "
            f"perceptron trained before fine-tuning read the feature worse after it, by {margin:g} "
            "or more, with at least half of that drop not shared by ridge. Unchanged: a change of "
            f"{config['equivalence']:g} or more was ruled out by two one-sided tests [tost]. "
            "Absent: an R2 above zero was shown neither before nor after. All else was undecided; "
            f"the loss that these patients would have shown with {POWER:.0%} power is reported.",
            "Above the features, one test asked whether anything changed in a task, and groups of "
            "features (class or filter in a region; modality and class) were tested by their mean "
            f"change, family-wise over all groups at {level:g} and only where the task's own test "
            "showed a change.",
        ]
    )


def _around(results: Results) -> str:
    config, said = results.run["config"], []
    tables = {task: tables.features for task, tables in results.tasks.items()}
    seeds = {task: int(table["retrained"].iloc[0]) for task, table in tables.items()}
    for task, count in seeds.items():
        if count >= MIN_ENCODERS:
            said.append(
                f"{_named(task)}: {count} encoders were fine-tuned from different seeds, and a "
                "change had to hold for the next one (prediction interval with moderated variances "
                "[moderated])."
            )
    said += [f"{_named(task)}: {EXPOSURE[exposure(table)]}." for task, table in tables.items()]
    if columns := config.get("adjust"):
        said.append(
            "Partial R2 was computed given "
            f"{', '.join(map(_named, columns))} (residuals inside the fold; numbers as cubic "
            "splines)."
        )
    if site := config.get("site"):
        said.append(f"R2 was also computed at sites held out in turn (column {_named(site)}).")
    if any(table["r2_ceiling"].notna().any() for table in tables.values()):
        said.append("The R2 that a feature's repeatability allows is its intraclass correlation.")
    said.append(
        "Lost and gained features were read once more by kernel ridge regression (Gaussian kernel) "
        "to tell a loss to linear readers from a loss. Encoding: the embedding was predicted from "
        "groups of features by ridge regression, and the explained variance shared out by "
        "Shapley values."
    )
    if results.tables("rest"):
        said.append(
            "What was new (gone) of an embedding was what ridge regression from the other one left "
            "of it; the share of this that the features told was that of a second ridge regression "
            "from what the same embedding left of the features, in held-out patients."
        )
    form = doctor_form(config.get("doctor", "off"))
    if form == "full":
        said.append(
            "False alarms and power of this very cohort were measured on known changes planted in "
            "the embeddings before fine-tuning."
        )
    return " ".join(said)


def _split(results: Results) -> str:
    config = results.run["config"]
    settings = SweepConfig(
        l1=tuple(config["l1"] or ()), l2=tuple(config["l2"]), mode=config["mode"]
    )
    paper = config["mode"] == "paper"
    l1, l2 = (
        ", ".join(f"{each:g}" for each in dict.fromkeys(grid))
        for grid in (settings.l1_grid, settings.l2)
    )
    sizes = []
    for name, scope in results.scopes.items():
        rows = scope.facts["rows"]
        start = f"{_named(name)}: " if len(results.scopes) > 1 else ""
        sizes.append(
            f"{start}{rows['train']} train, {rows['val']} validation and {rows['test']} test rows, "
            f"{scope.facts['hidden']} hidden units{_chosen(scope)}"
        )
    return (
        "R2, mean squared error and importance by feature group (Table 1) follow Wang et al. "
        f"[paper]{' to the letter' if paper else ''}. On one split by patient ({'; '.join(sizes)}),"
        " a perceptron of two layers was trained to reconstruct the min-max scaled features from "
        f"the {'' if paper else 'standardised '}embeddings before fine-tuning (L1 loss, "
        f"{'summed' if paper else 'averaged'} over features; {config['epochs']} epochs, batches of "
        f"{config['batch']}, Adam [adam] with a step of {config['rate']:g}; "
        f"{config['seeds']} initialisation(s) per penalty pair), for all pairs of L1 penalties "
        f"({l1}) and squared L2 penalties ({l2}). Its first layer was frozen, and a linear decoder "
        f"{'without' if paper else 'with'} intercept was solved by least squares on train and "
        f"validation rows for either embedding. Intervals are percentiles over "
        f"{config['bootstraps']} bootstrap samples of the test patients, the same before and "
        "after, with projection and decoders fixed."
    )


def _software(results: Results) -> str:
    run = results.run
    versions = dict(run["versions"])
    own = versions.pop("radiomic-lens", "")
    others = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
    return (
        f"Radiomic Lens {own} with {others}; JAX [jax]. Random seed {run['config']['seed']} for "
        "the split (unless given), folds, training, bootstrap and sign flips. Computed on "
        f"{str(run['started'])[:10]}."
    )


def _scheme(scope: Scope) -> str:
    facts = scope.facts
    if facts["folds"]:
        times = facts["repeats"]
        repeated = f", repeated {times} times" if times > 1 else ""
        return (
            f"{facts['folds']}-fold cross-validation by patient{repeated} "
            f"(n = {facts['scored']} patients held out)"
        )
    return f"one split by patient (n = {facts['scored']} test patients)"


def _chosen(scope: Scope) -> str:
    """The penalties that validation chose."""
    found = scope.sweep[scope.sweep["selected"]]
    if found.empty:
        return ""
    row: Any = found.iloc[0]
    return f"; chosen on validation: L1 {row['l1']:g}, squared L2 {row['l2']:g}"


def _images(results: Results, tasks: Iterable[str]) -> list[str]:
    """Filters of the images, in the order of the features."""
    columns: list[pd.Series] = [results.tasks[task].features["image"] for task in tasks]
    return list(dict.fromkeys(str(name).split("-")[0] for image in columns for name in image))


def _named(text: str) -> str:
    """A user's name, cut as in figures and without markup."""
    return re.sub(r"([\\`*<>\[\]|])", r"\\\1", short(literal(str(text))))


def _numbered(text: str) -> tuple[str, str]:
    """The text with numbers for the keys of `REFERENCES`, and the list of those cited."""
    # A bracket of a user's own name has a backslash before it.
    pattern = re.compile(rf"(?<!\\)\[({'|'.join(REFERENCES)})\]")
    keys = list(dict.fromkeys(pattern.findall(text)))
    listed = "\n".join(f"{at}. {REFERENCES[key]}" for at, key in enumerate(keys, 1))
    return pattern.sub(lambda found: f"[{keys.index(found[1]) + 1}]", text), listed
