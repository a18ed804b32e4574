"""`splitformer.v1.ModelAdminService`: loading and unloading models, on a listener of its own."""

from __future__ import annotations

from typing import Any

from grpc import aio

from splitformer.serving.fleet import Fleet
from splitformer.v1 import model_admin_service_pb2 as pb
from splitformer.v1.model_admin_service_pb2_grpc import (
    ModelAdminServiceServicer,
    add_ModelAdminServiceServicer_to_server,
)

NAME = "splitformer.v1.ModelAdminService"
Context = aio.ServicerContext[Any, Any]


class ModelAdminServicer(ModelAdminServiceServicer):
    """Answers for the models of one process."""

    def __init__(self, models: Fleet[Any]) -> None:
        self._models = models

    async def ListModels(
        self, request: pb.ListModelsRequest, context: Context
    ) -> pb.ListModelsResponse:
        """Say which models are loaded, and which could be."""
        return pb.ListModelsResponse(
            loaded=[model.info() for model in self._models], available=self._models.available()
        )

    async def LoadModel(
        self, request: pb.LoadModelRequest, context: Context
    ) -> pb.LoadModelResponse:
        """Load a model."""
        model = await self._models.load(request.name)
        return pb.LoadModelResponse(model=model.info())

    async def UnloadModel(
        self, request: pb.UnloadModelRequest, context: Context
    ) -> pb.UnloadModelResponse:
        """Unload a model once nothing uses it."""
        return pb.UnloadModelResponse(freed_bytes=await self._models.unload(request.name))


def register_admin(models: Fleet[Any], server: aio.Server) -> None:
    """Let a server administer models."""
    add_ModelAdminServiceServicer_to_server(ModelAdminServicer(models), server)
