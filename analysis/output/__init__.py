"""What analyses write: a folder of tables and figures, with one style and one number format."""
