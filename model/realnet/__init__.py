"""RealNet: a detector that learns from synthetic anomalies what good features look like.

Feature selection, reconstruction, residual selection and a decoder, in this order; a file each.
Source: RealNet, Zhang et al. 2024 (arXiv:2403.05897); where its text and its released code differ,
the code is meant.
"""
