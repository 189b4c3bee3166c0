"""Pure torch: backbones, the SimpleNet head, its folded form. Tensors in, tensors out."""
