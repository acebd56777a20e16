"""An independent implementation of the same definitions (MIRP, IBSI compliant) gives our values."""

from __future__ import annotations

import pytest
import SimpleITK as sitk

from lens.radiomics.extract import roi_features
from lens.radiomics.parameters import read_parameters
from tests.radiomics.phantoms import ellipsoid, image, texture

BINS = 32

SUFFIX = {
    "firstorder": "",
    "glcm": "_d1_3d_avg",
    "glrlm": "_3d_avg",
    "glszm": "_3d",
    "ngtdm": "_3d",
    "gldm": "_d1_a0.0_3d",
}
"""How MIRP names a class's merging of directions: per direction, then averaged, as PyRadiomics."""

NAMES = {
    "firstorder_10Percentile": "stat_p10",
    "firstorder_90Percentile": "stat_p90",
    "firstorder_Energy": "stat_energy",
    "firstorder_Entropy": "ih_entropy",
    "firstorder_InterquartileRange": "stat_iqr",
    "firstorder_Maximum": "stat_max",
    "firstorder_MeanAbsoluteDeviation": "stat_mad",
    "firstorder_Mean": "stat_mean",
    "firstorder_Median": "stat_median",
    "firstorder_Minimum": "stat_min",
    "firstorder_Range": "stat_range",
    "firstorder_RobustMeanAbsoluteDeviation": "stat_rmad",
    "firstorder_RootMeanSquared": "stat_rms",
    "firstorder_Skewness": "stat_skew",
    "firstorder_Uniformity": "ih_uniformity",
    "firstorder_Variance": "stat_var",
    "glcm_Autocorrelation": "cm_auto_corr",
    "glcm_ClusterProminence": "cm_clust_prom",
    "glcm_ClusterShade": "cm_clust_shade",
    "glcm_ClusterTendency": "cm_clust_tend",
    "glcm_Contrast": "cm_contrast",
    "glcm_Correlation": "cm_corr",
    "glcm_DifferenceAverage": "cm_diff_avg",
    "glcm_DifferenceEntropy": "cm_diff_entr",
    "glcm_DifferenceVariance": "cm_diff_var",
    "glcm_Id": "cm_inv_diff",
    "glcm_Idm": "cm_inv_diff_mom",
    "glcm_Idmn": "cm_inv_diff_mom_norm",
    "glcm_Idn": "cm_inv_diff_norm",
    "glcm_Imc1": "cm_info_corr1",
    "glcm_Imc2": "cm_info_corr2",
    "glcm_InverseVariance": "cm_inv_var",
    "glcm_JointAverage": "cm_joint_avg",
    "glcm_JointEnergy": "cm_energy",
    "glcm_JointEntropy": "cm_joint_entr",
    "glcm_MaximumProbability": "cm_joint_max",
    "glcm_SumAverage": "cm_sum_avg",
    "glcm_SumEntropy": "cm_sum_entr",
    "glcm_SumSquares": "cm_joint_var",
    "glrlm_GrayLevelNonUniformity": "rlm_glnu",
    "glrlm_GrayLevelNonUniformityNormalized": "rlm_glnu_norm",
    "glrlm_GrayLevelVariance": "rlm_gl_var",
    "glrlm_HighGrayLevelRunEmphasis": "rlm_hgre",
    "glrlm_LongRunEmphasis": "rlm_lre",
    "glrlm_LongRunHighGrayLevelEmphasis": "rlm_lrhge",
    "glrlm_LongRunLowGrayLevelEmphasis": "rlm_lrlge",
    "glrlm_LowGrayLevelRunEmphasis": "rlm_lgre",
    "glrlm_RunEntropy": "rlm_rl_entr",
    "glrlm_RunLengthNonUniformity": "rlm_rlnu",
    "glrlm_RunLengthNonUniformityNormalized": "rlm_rlnu_norm",
    "glrlm_RunPercentage": "rlm_r_perc",
    "glrlm_RunVariance": "rlm_rl_var",
    "glrlm_ShortRunEmphasis": "rlm_sre",
    "glrlm_ShortRunHighGrayLevelEmphasis": "rlm_srhge",
    "glrlm_ShortRunLowGrayLevelEmphasis": "rlm_srlge",
    "glszm_GrayLevelNonUniformity": "szm_glnu",
    "glszm_GrayLevelNonUniformityNormalized": "szm_glnu_norm",
    "glszm_GrayLevelVariance": "szm_gl_var",
    "glszm_HighGrayLevelZoneEmphasis": "szm_hgze",
    "glszm_LargeAreaEmphasis": "szm_lze",
    "glszm_LargeAreaHighGrayLevelEmphasis": "szm_lzhge",
    "glszm_LargeAreaLowGrayLevelEmphasis": "szm_lzlge",
    "glszm_LowGrayLevelZoneEmphasis": "szm_lgze",
    "glszm_SizeZoneNonUniformity": "szm_zsnu",
    "glszm_SizeZoneNonUniformityNormalized": "szm_zsnu_norm",
    "glszm_SmallAreaEmphasis": "szm_sze",
    "glszm_SmallAreaHighGrayLevelEmphasis": "szm_szhge",
    "glszm_SmallAreaLowGrayLevelEmphasis": "szm_szlge",
    "glszm_ZoneEntropy": "szm_zs_entr",
    "glszm_ZonePercentage": "szm_z_perc",
    "glszm_ZoneVariance": "szm_zs_var",
    "ngtdm_Busyness": "ngt_busyness",
    "ngtdm_Coarseness": "ngt_coarseness",
    "ngtdm_Complexity": "ngt_complexity",
    "ngtdm_Contrast": "ngt_contrast",
    "ngtdm_Strength": "ngt_strength",
    "gldm_DependenceEntropy": "ngl_dc_entr",
    "gldm_DependenceNonUniformity": "ngl_dcnu",
    "gldm_DependenceNonUniformityNormalized": "ngl_dcnu_norm",
    "gldm_DependenceVariance": "ngl_dc_var",
    "gldm_GrayLevelNonUniformity": "ngl_glnu",
    "gldm_GrayLevelVariance": "ngl_gl_var",
    "gldm_HighGrayLevelEmphasis": "ngl_hgce",
    "gldm_LargeDependenceEmphasis": "ngl_hde",
    "gldm_LargeDependenceHighGrayLevelEmphasis": "ngl_hdhge",
    "gldm_LargeDependenceLowGrayLevelEmphasis": "ngl_hdlge",
    "gldm_LowGrayLevelEmphasis": "ngl_lgce",
    "gldm_SmallDependenceEmphasis": "ngl_lde",
    "gldm_SmallDependenceHighGrayLevelEmphasis": "ngl_ldhge",
    "gldm_SmallDependenceLowGrayLevelEmphasis": "ngl_ldlge",
}
"""MIRP's name for each of PyRadiomics' features. Without GLCM's MCC, which IBSI does not define,
kurtosis (MIRP gives the excess) and total energy (energy times the volume of a voxel)."""


def test_features_equal_those_of_mirp(tmp_path):
    # Not skipped where MIRP is missing: it is part of the test extra (pip install -e '.[test]').
    from mirp import extract_features

    volume, mask = image(texture(0)), image(ellipsoid())
    paths = {"image": tmp_path / "image.nii.gz", "mask": tmp_path / "mask.nii.gz"}
    sitk.WriteImage(volume, paths["image"])
    sitk.WriteImage(mask, paths["mask"])
    file = tmp_path / "bins.yaml"
    file.write_text(f"setting: {{binCount: {BINS}}}\nimageType: {{Original: {{}}}}\n")
    ours = roi_features(volume, mask, read_parameters(file))
    theirs = extract_features(
        **{name: str(path) for name, path in paths.items()},
        base_feature_families="all",
        base_discretisation_method="fixed_bin_number",
        base_discretisation_n_bins=BINS,
        glcm_spatial_method="3d_average",
        glrlm_spatial_method="3d_average",
        glszm_spatial_method="3d",
        ngtdm_spatial_method="3d",
        ngldm_spatial_method="3d",
        by_slice=False,
    )[0].iloc[0]
    textured = {name for name in ours if "_shape_" not in name}
    left_out = {"glcm_MCC", "firstorder_Kurtosis", "firstorder_TotalEnergy"}
    assert {name.removeprefix("original_") for name in textured} == NAMES.keys() | left_out
    for name, their_name in NAMES.items():
        binned = f"_fbn_n{BINS}" if not their_name.startswith("stat_") else ""
        expected = theirs[their_name + SUFFIX[name.split("_")[0]] + binned]
        # MIRP holds intensities in single precision; skewness cancels most of their digits.
        rtol = 1e-5 if name.startswith("firstorder") else 1e-8
        assert ours[f"original_{name}"] == pytest.approx(expected, rel=rtol), name
    kurtosis = theirs["stat_kurt"] + 3
    assert ours["original_firstorder_Kurtosis"] == pytest.approx(kurtosis, rel=1e-5)
