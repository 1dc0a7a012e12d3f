"""The command line: parser, presets, exit codes and process set-up."""
