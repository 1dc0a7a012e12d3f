"""One file per family of networks; `core.models.FAMILIES` names them."""
