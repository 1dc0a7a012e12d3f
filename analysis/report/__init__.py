"""The report page: everything in a results folder, in one HTML file."""
