"""What every ablation needs: runs and their store, audio in, images out, models in blocks, training."""
