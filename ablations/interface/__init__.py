"""The toolkit in Python programs and notebooks; `ablations` exports the functions of these modules."""
