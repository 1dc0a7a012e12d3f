"""One loader per data set, each in the official layout with the official folds."""
