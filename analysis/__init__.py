"""From finished runs to numbers, tables and figures; never trains."""
