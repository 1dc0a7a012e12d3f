"""Forward passes without gradients: batch norm folding, precision, parallel batches, evaluation."""
