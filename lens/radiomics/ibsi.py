"""Names that other programs give to features, as PyRadiomics' names.

The Image Biomarker Standardisation Initiative (IBSI) gives each feature a permanent code of four
characters (``Q4LE``, the mean) and short names by family (``stat_mean``). MIRP writes the names,
pictologics names that end in the code.
"""

from __future__ import annotations

import re

FAMILIES = {
    "morph": "shape", "loc": "loc", "stat": "firstorder", "ih": "ih", "ivh": "ivh", "cm": "glcm",
    "rlm": "glrlm", "szm": "glszm", "dzm": "gldzm", "ngt": "ngtdm", "ngl": "gldm",
}  # fmt: skip
"""Family, by which an IBSI name begins -> class of features."""

EQUIVALENTS = """
morph_volume RNU0 MeshVolume; morph_vol_approx YEKZ VoxelVolume; morph_area_mesh C0JK SurfaceArea;
morph_av 2PR5 SurfaceVolumeRatio; morph_sphericity QCFX Sphericity;
morph_comp_1 SKGS Compactness1; morph_comp_2 BQWJ Compactness2;
morph_sph_dispr KRCK SphericalDisproportion; morph_diam L0JK Maximum3DDiameter;
morph_pca_maj_axis TDIC MajorAxisLength; morph_pca_min_axis P9VJ MinorAxisLength;
morph_pca_least_axis 7J51 LeastAxisLength; morph_pca_elongation Q3CK Elongation;
morph_pca_flatness N17B Flatness;
stat_mean Q4LE Mean; stat_var ECT3 Variance; stat_skew KE2A Skewness; stat_kurt IPH6 Kurtosis;
stat_median Y12H Median; stat_min 1GSF Minimum; stat_p10 QG58 10Percentile;
stat_p90 8DWT 90Percentile; stat_max 84IY Maximum; stat_iqr SALO InterquartileRange;
stat_range 2OJQ Range; stat_mad 4FUA MeanAbsoluteDeviation;
stat_rmad 1128 RobustMeanAbsoluteDeviation; stat_energy N8CA Energy; stat_rms 5ZWQ RootMeanSquared;
cm_joint_max GYBY MaximumProbability; cm_joint_avg 60VM JointAverage;
cm_joint_var UR99 SumSquares; cm_joint_entr TU9B JointEntropy; cm_diff_avg TF7R DifferenceAverage;
cm_diff_var D3YU DifferenceVariance; cm_diff_entr NTRS DifferenceEntropy;
cm_sum_avg ZGXS SumAverage; cm_sum_entr P6QZ SumEntropy; cm_energy 8ZQL JointEnergy;
cm_contrast ACUI Contrast; cm_inv_diff IB1Z Id; cm_inv_diff_norm NDRX Idn; cm_inv_diff_mom WF0Z Idm;
cm_inv_diff_mom_norm 1QCO Idmn; cm_inv_var E8JP InverseVariance; cm_corr NI2N Correlation;
cm_auto_corr QWB0 Autocorrelation; cm_clust_tend DG8W ClusterTendency;
cm_clust_shade 7NFM ClusterShade; cm_clust_prom AE86 ClusterProminence; cm_info_corr1 R8DG Imc1;
cm_info_corr2 JN9H Imc2;
rlm_sre 22OV ShortRunEmphasis; rlm_lre W4KF LongRunEmphasis; rlm_lgre V3SW LowGrayLevelRunEmphasis;
rlm_hgre G3QZ HighGrayLevelRunEmphasis; rlm_srlge HTZT ShortRunLowGrayLevelEmphasis;
rlm_srhge GD3A ShortRunHighGrayLevelEmphasis; rlm_lrlge IVPO LongRunLowGrayLevelEmphasis;
rlm_lrhge 3KUM LongRunHighGrayLevelEmphasis; rlm_glnu R5YN GrayLevelNonUniformity;
rlm_glnu_norm OVBL GrayLevelNonUniformityNormalized; rlm_rlnu W92Y RunLengthNonUniformity;
rlm_rlnu_norm IC23 RunLengthNonUniformityNormalized; rlm_r_perc 9ZK5 RunPercentage;
rlm_gl_var 8CE5 GrayLevelVariance; rlm_rl_var SXLW RunVariance; rlm_rl_entr HJ9O RunEntropy;
szm_sze 5QRC SmallAreaEmphasis; szm_lze 48P8 LargeAreaEmphasis;
szm_lgze XMSY LowGrayLevelZoneEmphasis; szm_hgze 5GN9 HighGrayLevelZoneEmphasis;
szm_szlge 5RAI SmallAreaLowGrayLevelEmphasis; szm_szhge HW1V SmallAreaHighGrayLevelEmphasis;
szm_lzlge YH51 LargeAreaLowGrayLevelEmphasis; szm_lzhge J17V LargeAreaHighGrayLevelEmphasis;
szm_glnu JNSA GrayLevelNonUniformity; szm_glnu_norm Y1RO GrayLevelNonUniformityNormalized;
szm_zsnu 4JP3 SizeZoneNonUniformity; szm_zsnu_norm VB3A SizeZoneNonUniformityNormalized;
szm_z_perc P30P ZonePercentage; szm_gl_var BYLV GrayLevelVariance; szm_zs_var 3NSA ZoneVariance;
szm_zs_entr GU8N ZoneEntropy;
ngt_coarseness QCDE Coarseness; ngt_contrast 65HE Contrast; ngt_busyness NQ30 Busyness;
ngt_complexity HDEZ Complexity; ngt_strength 1X9X Strength;
ngl_lde SODN SmallDependenceEmphasis; ngl_hde IMOQ LargeDependenceEmphasis;
ngl_lgce TL9H LowGrayLevelEmphasis; ngl_hgce OAE7 HighGrayLevelEmphasis;
ngl_ldlge EQ3F SmallDependenceLowGrayLevelEmphasis;
ngl_ldhge JA6D SmallDependenceHighGrayLevelEmphasis;
ngl_hdlge NBZI LargeDependenceLowGrayLevelEmphasis;
ngl_hdhge 9QMG LargeDependenceHighGrayLevelEmphasis; ngl_glnu FP8K GrayLevelNonUniformity;
ngl_dcnu Z87G DependenceNonUniformity; ngl_dcnu_norm OKJI DependenceNonUniformityNormalized;
ngl_gl_var 1PFV GrayLevelVariance; ngl_dc_var DNX2 DependenceVariance;
ngl_dc_entr FCBV DependenceEntropy
"""
"""IBSI name, code and PyRadiomics' name of the features that both define."""

OTHER_CODES = {
    "shape": "25C7 KLMA 99N0 R3ER 7T7F PBX1 R59B ZH1A IQYR 6BDE RDD2 SWZ1 BRI8 N365 NPT7",
    "firstorder": "N72L 7TET 9S40",
    "loc": "VJGA 0F91",
    "ih": "X6K6 CH89 88K1 C3I7 WIFQ 1PR8 GPMT OZ0C 3NCY AMMC WR0O 5Z3W D2ZX WRZB 4RNL CWYJ SLWD"
    " TLU2 BJ5W 12CE 8E6O VQB3 RHQZ",
    "ivh": "BC2M BOC5 4279 NK6P PWN1 BOHI WITY JXJA 9CMM",
    "glcm": "OEEB 8S9J",
    "gldzm": "0GBI MB4I S1RA K26C RUVG DKNJ A7WM KLTH VFT7 7HP3 V294 IATH VIWW QK93 7WT1 GBDU",
    "gldm": "5SPA 6XV8 CAS9",
}
"""Codes of features that PyRadiomics lacks, by class; they keep their own names."""

OTHER_NAMES = {
    "morph": "asphericity com integ_int (?:vol|area)_dens_(?:conv_hull|aabb|ombb|aee|mvee) moran_i"
    " geary_c",
    "loc": "peak_loc peak_glob",
    "stat": r"p\d+ medad cov qcod",
    "ih": r"mean var skew kurt median min max mode iqr range mad rmad medad cov qcod entropy p\d+"
    " uniformity (?:max|min)_grad(?:_g)?",
    "ivh": r"[vi]\d+ diff_v\d+_v\d+ diff_i\d+_i\d+ auc",
    "cm": "sum_var dissimilarity",
    "dzm": "sde lde lgze hgze sdlge sdhge ldlge ldhge glnu glnu_norm zdnu zdnu_norm z_perc gl_var"
    " zd_var zd_entr",
    "ngl": "glnu_norm dc_perc dc_energy",
}
"""IBSI names of features that PyRadiomics lacks, by family; patterns between blanks."""

_ROWS = [row.split() for row in EQUIVALENTS.split(";")]
_OF_NAME = {name: feature for name, _, feature in _ROWS}
_OF_CODE = {code: (FAMILIES[name.split("_")[0]], feature) for name, code, feature in _ROWS}
_CLASS_OF_CODE = {code: kind for kind, codes in OTHER_CODES.items() for code in codes.split()}
_OTHERS = [f"{family}_(?:{'|'.join(names.split())})" for family, names in OTHER_NAMES.items()]

_SETTINGS = r"(?:a|d|2d|2\.5d|3d|fbn|fbs|fbsp)(?:[\d._].*)?"
"""What follows a name: distance, aggregation and bins, such as ``d1_3d_avg_fbn_n32``."""

_NAME = re.compile(
    rf"(?:(?P<image>.+?)_)?(?P<name>{'|'.join(map(re.escape, _OF_NAME))}|{'|'.join(_OTHERS)})"
    rf"(?:_(?P<settings>{_SETTINGS}))?"
)
_CODE = re.compile(r"(?:(?P<image>.+?)__)?(?P<words>\w+)_(?P<code>[A-Z0-9]{4})")


def as_pyradiomics(name: str) -> str | None:
    """``<image>_<class>_<feature>`` of a name by MIRP, IBSI or pictologics; None of another.

    A feature that PyRadiomics has gets its name there, another one its own. Filter and settings,
    such as distance, aggregation and bins, become part of the image's name, since features that
    differ in them are other features: ``cm_corr_d1_3d_avg_fbn_n32`` is
    ``original-d1-3d-avg-fbn-n32_glcm_Correlation``, and ``std__mean_intensity_Q4LE`` is
    ``std_firstorder_Mean``.
    """
    if found := _CODE.fullmatch(name):
        code, image = found["code"], _as_image(found["image"] or "original")
        if code in _OF_CODE:
            kind, feature = _OF_CODE[code]
            return f"{image}_{kind}_{feature}"
        if code in _CLASS_OF_CODE:
            return f"{image}_{_CLASS_OF_CODE[code]}_{_camel(found['words'])}"
    if name in _OF_CODE:
        return "original_{}_{}".format(*_OF_CODE[name])
    found = _NAME.fullmatch(name)
    if found is None:
        return None
    family, words = found["name"].split("_", maxsplit=1)
    feature = _OF_NAME.get(found["name"]) or _camel(words)
    image = _as_image(f"{found['image'] or 'original'}_{found['settings'] or ''}")
    return f"{image}_{FAMILIES[family]}_{feature}"


def _as_image(words: str) -> str:
    return re.sub(r"[\W_]+", "-", words).strip("-")


def _camel(words: str) -> str:
    return "".join(word[:1].upper() + word[1:] for word in re.split(r"[\W_]+", words))
