"""Output of analyses: result folder, tables, figure style, number formats."""
