"""Send the learning curves, options and metrics of runs to an experiment tracker (``--track``)."""

from core.registry import Registry

CLIENTS = Registry(
    "tracker",
    {
        "mlflow": "core.tracking.mlflow_client:MlflowClient",
        "wandb": "core.tracking.wandb_client:WandbClient",
    },
)
