"""The project's own networks by name: one file each, and its line here."""

from core.registry import Registry

NETWORKS = Registry(
    "network",
    {
        "soundnet8": "core.models.networks.soundnet8:NETWORK",
    },
)
