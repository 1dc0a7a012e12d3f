"""Networks described in papers, by name: one file each, and one line in this registry."""

from core.registry import Registry

NETWORKS = Registry(
    "network",
    {
        "soundnet8": "core.models.networks.soundnet8:NETWORK",
        "soundnet8_1d": "core.models.networks.soundnet8_1d:NETWORK",
        "googlenet_2014": "core.models.networks.googlenet_2014:NETWORK",
        "resnet34_conv3": "core.models.networks.resnet34_conv3:NETWORK",
        "mobilenet_v1": "core.models.networks.mobilenet_v1:NETWORK",
        "resnet18_dense": "core.models.networks.resnet18_dense:NETWORK",
        "convolneunet": "core.models.networks.convolneunet:NETWORK",
        "cnn6": "core.models.networks.panns:CNN6",
        "cnn10": "core.models.networks.panns:CNN10",
        "cnn14": "core.models.networks.panns:CNN14",
        "resnet38": "core.models.networks.panns:RESNET38",
        "mlp": "core.models.networks.mlp:NETWORK",
    },
)
