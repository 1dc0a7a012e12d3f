"""The command line: parser, help, exit codes and process set-up."""
