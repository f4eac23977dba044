"""Who watches a run: lines, a progress bar, files of figures, the confusion matrix."""
